//! Options of the network and of the engine: defaults, then `config.toml` of the home, then what was saved for the
//! database at `create` or `join`, then the flags of this command.

use serde::{Deserialize, Serialize};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

const POLL_INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(200);
const CACHE_MIB_DEFAULT: u64 = 256;
const SHOW_EARLY_MIB_DEFAULT: u64 = 1024;
/// Bootstrap nodes of the public Mainline DHT, used where nothing else is named.
const PUBLIC_BOOTSTRAP: [&str; 4] = [
    "router.bittorrent.com:6881",
    "dht.transmissionbt.com:6881",
    "dht.libtorrent.org:25401",
    "relay.pkarr.org:6881",
];

/// One layer of options; what is absent is left to the layer below.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Options {
    /// DHT nodes to start from, `HOST:PORT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Vec<String>>,
    /// Where to listen for peers, and from where to speak to the DHT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Peers that are tried besides those that the DHT names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Vec<SocketAddr>>,
    /// Look for neighbours on the local network; by default everywhere but where the DHT is a private one on loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lan: Option<bool>,
    /// Keep connections to other devices, over which news come at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbours: Option<bool>,
    /// No network at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline: Option<bool>,
    /// Bytes per second sent to peers.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "super::size::optional_rate")]
    pub limit_up: Option<u32>,
    /// Bytes per second fetched from peers.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "super::size::optional_rate")]
    pub limit_down: Option<u32>,
    /// Seconds between two polls of the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll_interval: Option<f64>,
    /// A command whose first line of output is the passphrase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passphrase_command: Option<Words>,
    /// A file of which all bytes belong to what opens the keyring.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// A command that hears of what a person should look at: conflicts and refusals.
    #[serde(skip_serializing_if = "Option::is_none", alias = "on_event")]
    pub on_event: Option<String>,
    /// Ask the router to let peers in (UPnP); by default where the DHT is not a private one on loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upnp: Option<bool>,
    /// MiB of memory for decrypted data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_mib: Option<u64>,
    /// The largest image that is fetched, in MiB; by default the free space of the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_mib_max: Option<u64>,
    /// Show files before they are here, and fetch them when they are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<bool>,
    /// A version of which more is missing, in MiB, is shown before the content of its files is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub show_early_mib: Option<u64>,
    /// What the store may take where files are fetched on demand, in bytes: a number, or text such as "20G".
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "super::size::optional")]
    pub local_limit: Option<u64>,
    /// Paths that are kept here although files are fetched on demand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<Vec<String>>,
    /// What the store of a mirror may take, in bytes: a number, or text such as "20G".
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "super::size::optional")]
    pub mirror_quota: Option<u64>,
}

/// A command with its arguments: a list, or a text that is split into words as a shell would.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Words {
    /// The words as they are.
    List(Vec<String>),
    /// Words to be split.
    Line(String),
}

impl Words {
    /// The program and its arguments; none where no program is named.
    pub fn split(&self) -> Option<Vec<String>> {
        let words = match self {
            Words::List(words) => Some(words.clone()),
            Words::Line(line) => shlex::split(line),
        };
        words.filter(|words| words.first().is_some_and(|program| !program.is_empty()))
    }
}

impl Options {
    /// Reads a layer from a file; a file that does not exist is an empty layer.
    pub fn read(path: &Path) -> io::Result<Options> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Options::default()),
            Err(error) => return Err(error),
        };
        toml::from_str(&text).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {}", path.display(), error.message()))
        })
    }

    /// Writes a layer to a file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        std::fs::write(path, text)
    }

    /// `upper` where it says something, `self` elsewhere. Naming a way out ends an `offline` of a lower layer.
    pub fn under(self, upper: Options) -> Options {
        let reaches_out = upper.bootstrap.is_some() || upper.peer.is_some();
        let inherited_offline = if reaches_out { None } else { self.offline };
        Options {
            bootstrap: upper.bootstrap.or(self.bootstrap),
            listen: upper.listen.or(self.listen),
            peer: upper.peer.or(self.peer),
            lan: upper.lan.or(self.lan),
            neighbours: upper.neighbours.or(self.neighbours),
            offline: upper.offline.or(inherited_offline),
            limit_up: upper.limit_up.or(self.limit_up),
            limit_down: upper.limit_down.or(self.limit_down),
            poll_interval: upper.poll_interval.or(self.poll_interval),
            passphrase_command: upper.passphrase_command.or(self.passphrase_command),
            key_file: upper.key_file.or(self.key_file),
            on_event: upper.on_event.or(self.on_event),
            upnp: upper.upnp.or(self.upnp),
            cache_mib: upper.cache_mib.or(self.cache_mib),
            image_mib_max: upper.image_mib_max.or(self.image_mib_max),
            on_demand: upper.on_demand.or(self.on_demand),
            show_early_mib: upper.show_early_mib.or(self.show_early_mib),
            local_limit: upper.local_limit.or(self.local_limit),
            pin: upper.pin.or(self.pin),
            mirror_quota: upper.mirror_quota.or(self.mirror_quota),
        }
    }

    /// The options with every gap filled.
    pub fn settle(self) -> Settings {
        let poll = self.poll_interval.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let bootstrap = self.bootstrap.unwrap_or_else(|| PUBLIC_BOOTSTRAP.map(String::from).to_vec());
        let neighbours = self.neighbours.unwrap_or(true);
        Settings {
            neighbours,
            lan: neighbours && self.lan.unwrap_or_else(|| !all_on_loopback(&bootstrap)),
            upnp: self.upnp.unwrap_or_else(|| !all_on_loopback(&bootstrap)),
            on_event: self.on_event.filter(|command| !command.is_empty()),
            bootstrap,
            listen: self.listen.unwrap_or_else(|| SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
            peers: self.peer.unwrap_or_default(),
            offline: self.offline.unwrap_or(false),
            limit_up: self.limit_up,
            limit_down: self.limit_down,
            poll_interval: poll.unwrap_or(POLL_INTERVAL_DEFAULT).max(POLL_INTERVAL_MIN),
            cache_bytes: self.cache_mib.unwrap_or(CACHE_MIB_DEFAULT).max(8) << 20,
            image_bytes_max: self.image_mib_max.map(|mib| mib << 20),
            rescue: false,
            mirrors: false,
            on_demand: self.on_demand.unwrap_or(false),
            early_bytes_min: self.show_early_mib.unwrap_or(SHOW_EARLY_MIB_DEFAULT).saturating_mul(1 << 20),
            local_limit_bytes: self.local_limit.filter(|_| self.on_demand == Some(true)),
            pins: self.pin.unwrap_or_default(),
            mirror_quota_bytes: self.mirror_quota,
        }
    }
}

/// Whether these DHT nodes are all on this machine: then what stands on them is a trial, and keeps to itself.
pub fn all_on_loopback(bootstrap: &[String]) -> bool {
    let host = |node: &str| node.rsplit_once(':').map_or(node, |(host, _)| host).to_owned();
    bootstrap
        .iter()
        .map(|node| host(node))
        .all(|host| host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()))
}

/// Options with every gap filled: what an engine runs with.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// DHT nodes to start from.
    pub bootstrap: Vec<String>,
    /// Where to listen for peers; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Peers that are tried besides those that the DHT names.
    pub peers: Vec<SocketAddr>,
    /// Keep connections to other devices. Without, nobody is looked for but in the DHT, and nothing is fetched on demand.
    pub neighbours: bool,
    /// Look for neighbours on the local network.
    pub lan: bool,
    /// Ask the router to let peers in.
    pub upnp: bool,
    /// A command that hears of what a person should look at.
    pub on_event: Option<String>,
    /// No network at all.
    pub offline: bool,
    /// Bytes per second sent to peers.
    pub limit_up: Option<u32>,
    /// Bytes per second fetched from peers.
    pub limit_down: Option<u32>,
    /// Time between two polls of the record.
    pub poll_interval: Duration,
    /// Memory for decrypted data, in bytes.
    pub cache_bytes: u64,
    /// The largest image that is fetched, in bytes; the disk's free space where absent.
    pub image_bytes_max: Option<u64>,
    /// Open what is left of a damaged store; nothing is written before it is repaired.
    pub rescue: bool,
    /// Keep what others need: every version of the record, within the quota.
    pub mirrors: bool,
    /// Fetch the content of files when it is read, and no sooner.
    pub on_demand: bool,
    /// A version of which more is missing is shown before its files are here, if neighbours can be asked.
    pub early_bytes_min: u64,
    /// What the store may take then, in bytes.
    pub local_limit_bytes: Option<u64>,
    /// Paths whose content is fetched all the same.
    pub pins: Vec<String>,
    /// What the store of a mirror may take, in bytes.
    pub mirror_quota_bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_saved_bootstrap_survives_a_command_without_flags() {
        let saved = Options {
            bootstrap: Some(vec!["127.0.0.1:1".into()]),
            poll_interval: Some(1.0),
            ..Default::default()
        };
        let settled = saved.under(Options::default()).settle();
        assert_eq!(settled.bootstrap, ["127.0.0.1:1"]);
        assert_eq!(settled.poll_interval, Duration::from_secs(1));
    }

    #[test]
    fn a_trial_on_loopback_keeps_off_the_local_network_unless_asked() {
        let trial = Options { bootstrap: Some(vec!["127.0.0.1:1".into()]), ..Default::default() };
        assert!(!trial.clone().settle().lan);
        assert!(trial.under(Options { lan: Some(true), ..Default::default() }).settle().lan);
        assert!(Options::default().settle().lan);
        assert!(!Options { lan: Some(false), ..Default::default() }.settle().lan);
    }

    #[test]
    fn who_wants_no_neighbours_looks_for_none_on_the_local_network() {
        let alone = Options { neighbours: Some(false), lan: Some(true), ..Default::default() };
        assert!(Options::default().settle().neighbours);
        let settled = alone.under(Options::default()).settle();
        assert!(!settled.neighbours && !settled.lan);
    }

    #[test]
    fn naming_a_peer_ends_a_saved_offline() {
        let saved = Options { offline: Some(true), ..Default::default() };
        assert!(saved.clone().under(Options::default()).settle().offline);
        let flags = Options { peer: Some(vec!["127.0.0.1:2".parse().unwrap()]), ..Default::default() };
        assert!(!saved.under(flags).settle().offline);
    }

    #[test]
    fn a_quota_is_a_number_or_a_text() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        for (text, bytes) in [("3000000", 3_000_000), ("\"20G\"", 20 << 30)] {
            std::fs::write(&file, format!("mirror-quota = {text}")).unwrap();
            let options = Options::read(&file).unwrap();
            assert_eq!(options.mirror_quota, Some(bytes));
            options.write(&file).unwrap();
            assert_eq!(Options::read(&file).unwrap(), options);
        }
        std::fs::write(&file, "mirror-quota = \"much\"").unwrap();
        assert!(Options::read(&file).is_err());
    }

    #[test]
    fn a_command_is_a_list_or_a_line() {
        let words = |text: &str| toml::from_str::<Options>(text).unwrap().passphrase_command.unwrap().split();
        let expected = Some(["pass", "show", "my notes"].map(String::from).to_vec());
        assert_eq!(words("passphrase-command = ['pass', 'show', 'my notes']"), expected);
        assert_eq!(words("passphrase-command = \"pass show 'my notes'\""), expected);
        for none in ["[]", "['']", "''", "\"pass 'unclosed\""] {
            assert_eq!(words(&format!("passphrase-command = {none}")), None, "{none}");
        }
    }

    #[test]
    fn unknown_options_are_an_error_that_names_them() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        std::fs::write(&file, "bootstrp = []").unwrap();
        assert!(Options::read(&file).unwrap_err().to_string().contains("bootstrp"));
    }
}
