//! The arguments of the program: global flags, which may stand before or after the command, and the commands.

use super::{
    block, completions, create, engine, fsck, history, invite, join, link, member, metrics, mirror, mount,
    peek, pin, policy, rekey, share, status, sync, testnet, umount, unlock,
};
use crate::daemon::size::rate;
use clap::{ArgAction, Args, Parser, Subcommand};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Shared folders that need no server and no account.
#[derive(Parser)]
#[command(name = "kilofs", version, about, propagate_version = true, max_term_width = 100)]
pub struct Arguments {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Args)]
pub struct Globals {
    /// Keep everything under DIR instead of the XDG directories
    #[arg(long, global = true, value_name = "DIR", env = "KILOFS_HOME", hide_env_values = true)]
    pub home: Option<PathBuf>,
    /// Print results as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more in the log; repeat for even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// The keyring has, or gets, no passphrase
    #[arg(long, global = true)]
    pub no_passphrase: bool,
    /// Read the keyring's passphrase from the first line of FILE
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// FILE, all of it, belongs to what opens the keyring
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Network")]
    pub network: Network,
}

/// Flags of the network; those of `create` and `join` are saved for the database.
#[derive(Args)]
pub struct Network {
    /// A DHT node to start from; repeatable
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub bootstrap: Vec<String>,
    /// Where to wait for peers, and from where to speak to the DHT
    #[arg(long, global = true, value_name = "ADDR", value_parser = listen_address)]
    pub listen: Option<SocketAddr>,
    /// A peer to try besides those that the DHT names; repeatable
    #[arg(long, global = true, value_name = "ADDR:PORT")]
    pub peer: Vec<SocketAddr>,
    /// Keep no connections to other devices for news: they meet in the DHT and the torrents alone
    #[arg(long, global = true)]
    pub no_neighbours: bool,
    /// Do not ask the router to let peers in (UPnP)
    #[arg(long, global = true)]
    pub no_upnp: bool,
    /// Use no network at all
    #[arg(long, global = true, conflicts_with_all = ["bootstrap", "peer"])]
    pub offline: bool,
    /// Bytes per second sent to peers, such as 500K or 2M
    #[arg(long, global = true, value_name = "RATE", value_parser = rate)]
    pub limit_up: Option<u32>,
    /// Bytes per second fetched from peers, such as 500K or 2M
    #[arg(long, global = true, value_name = "RATE", value_parser = rate)]
    pub limit_down: Option<u32>,
    /// Seconds between two looks at the record
    #[arg(long, global = true, value_name = "S", value_parser = seconds)]
    pub poll_interval: Option<f64>,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Make a new database
    Create(create::Create),
    /// Print a link that gives access to a database
    Link(link::Link),
    /// Print a link for one person, locked with words, that expires
    Invite(invite::Invite),
    /// Take a database from a link on standard input
    Join(join::Join),
    /// Show a database as a directory
    Mount(mount::Mount),
    /// Change what opens the keyring
    Passphrase(rekey::Change),
    /// Let the kernel keep what opens the keyring for a while
    Unlock(unlock::Unlock),
    /// Let go what `unlock` keeps
    Lock(unlock::Lock),
    /// Keep a plain folder in step with a database
    Share(share::Share),
    /// End a mount, a share or a mirror
    Umount(umount::Umount),
    /// Show how databases are
    Status(status::Show),
    /// Publish what is pending and fetch what is newer
    Sync(sync::Sync),
    /// Directories with rules of their own
    Block(block::Block),
    /// Who may change what
    Policy(policy::Policy),
    /// Whose changes count
    Member(member::Member),
    /// Move a database to new keys
    Rotate(member::Rotate),
    /// List the kept versions
    Versions(history::Versions),
    /// Copy a file or directory out of a kept version
    Restore(history::Restore),
    /// Keep a path on this device although files are fetched on demand
    Pin(pin::Pin),
    /// Let what was pinned be fetched on demand again
    Unpin(pin::Unpin),
    /// Follow, keep and seed databases without showing them
    Mirror(mirror::Mirror),
    /// Print metrics of the running engines for Prometheus
    Metrics(metrics::Metrics),
    /// List the newest changes
    Log(history::Log),
    /// List what differs between two kept versions
    Diff(history::Diff),
    /// Look at every byte of a database's store
    Fsck(fsck::Fsck),
    /// Look for what keeps kilofs from working here
    Doctor,
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Run a private DHT for tests and trials
    Testnet(testnet::Run),
    /// An engine in the background; started by `mount` and `mirror`
    #[command(hide = true)]
    Engine(engine::Engine),
    /// Read a file of a mount that may not answer; started by `umount`
    #[command(hide = true)]
    Peek(peek::Peek),
}

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>().or_else(|_| text.parse::<IpAddr>().map(|ip| (ip, 0).into()));
    address.map_err(|_| "an address is an IP address, with or without a port: 0.0.0.0:6881".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds > 0.0);
    number.ok_or_else(|| "a time is a positive number of seconds".into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_or_after_the_command() {
        for line in ["kilofs --home /h --json status", "kilofs status --home /h --json"] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(arguments.globals.home, Some("/h".into()));
            assert!(arguments.globals.json);
        }
    }
}
