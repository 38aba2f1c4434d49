//! Puts the status of an engine together.

use super::begun::waiting_in_words;
use super::conflicts::existing_conflicts;
use super::core::Core;
use super::drive::Driver;
use super::status::{BlockStatus, Counters, NeighbourStatus, Status, TransferStatus, VersionStatus};
use crate::base::InfoHash;
use crate::crypt::link::Kind;
use std::sync::atomic::Ordering;

/// A record that nobody confirmed for so long may be an old one that somebody holds in front of us.
pub(super) const STALE_SECONDS: f64 = 86_400.0;

/// What a device is told that a rotation left out.
pub(super) const LEFT_OUT: &str = "this device was left out when the database moved to new keys: what is here stays readable, nothing newer comes, \
     and what is changed here reaches nobody; ask the admin for a new link";

/// The same where the admin key is at hand, as after joining with a recovery sheet from before: it opens the new keys too.
const LEFT_OUT_WITH_ADMIN_KEY: &str = "this device was left out when the database moved to new keys, and holds the admin key, which opens them: unmount it and mount \
     it again, and it follows";

/// Two admin devices moved the database at one time.
pub(super) const RIVAL: &str = "another admin device moved this database to other new keys while the move was made that this device followed: there \
     are two databases now, and neither hears of the other. Choose one; each device of the other copies what only it has, and \
     joins the chosen one with a new link from there";

/// What a capability is called.
pub fn kind_name(kind: Kind) -> &'static str {
    kind.name()
}

/// The first characters of a torrent's id, for the log.
pub fn short(infohash: &crate::base::InfoHash) -> String {
    infohash.to_string().chars().take(12).collect()
}

impl Core {
    /// What a device is called in the log.
    pub(super) fn called(&self, device: &crate::base::DeviceId) -> String {
        if *device == self.keys.device.public() {
            return "this device".into();
        }
        format!("device {}", device.to_string().chars().take(8).collect::<String>())
    }
}

/// The status of a database; `driver` is absent where no network runs, `mounted_at` where it is not mounted.
pub fn status(core: &Core, driver: Option<&Driver>, serving: bool, mounted_at: Option<String>) -> Status {
    let root = core.content_root().map(|id| id.to_string());
    let pending_bytes = core.pending_bytes();
    let (fetched_bytes, sent_bytes) =
        driver.map_or_else(|| (core.cache.meter("fetched"), core.cache.meter("sent")), Driver::meters);
    let mut inner = core.inner();
    let conflicts = match &core.tree {
        Some(tree) => existing_conflicts(&mut inner, tree),
        None => Vec::new(),
    };
    let state = &inner.state;
    let named = core.named_versions(&inner);
    let newest_named = named.first().map(|version| version.infohash);
    let listed = if named.is_empty() { state.head.into_iter().collect() } else { named };
    let versions = listed.iter().map(|version| {
        let kept = inner.versions.get(&version.infohash);
        let commit = kept.and_then(|kept| kept.commit.as_ref());
        VersionStatus {
            infohash: version.infohash.to_string(),
            complete: kept.is_some_and(|kept| core.store.is_whole(&kept.image)),
            peers: driver.map_or(0, |driver| driver.peers_of(version.infohash)),
            time: commit.map(|commit| commit.time),
            device: commit.map(|commit| commit.device.to_string()),
            image_bytes: kept.map_or(0, |kept| kept.image.bytes()),
        }
    });
    let blocks = state.charter.blocks.iter().filter(|_| core.tree.is_some()).map(|(number, block)| {
        let used = core.tree.as_ref().and_then(|tree| tree.counted(*number));
        let most = |count: i128| u64::try_from(count).unwrap_or(u64::MAX);
        BlockStatus {
            number: number.0,
            path: format!("/{}", String::from_utf8_lossy(&block.path)),
            mode: state.policy.modes.get(usize::from(number.0)).map_or("rw".into(), ToString::to_string),
            owner: block.owner.map(|owner| owner.to_string()),
            writable: core.may_write(&state.policy, &state.charter, *number),
            readable: !core.is_closed(&state.charter, *number) && core.opens_private(*number, block),
            private: block.private.is_some(),
            readers: block
                .private
                .iter()
                .flat_map(|private| private.readers.keys().map(ToString::to_string))
                .collect(),
            quota_bytes: block.quota.bytes,
            quota_files: block.quota.files,
            used_bytes: used.map(|used| most(used.bytes)),
            used_files: used.map(|used| most(used.files)),
        }
    });
    let newest = state.head.and_then(|head| inner.versions.get(&head.infohash)).map(|version| &version.image);
    let image = newest.filter(|newest| newest.bytes() > inner.image.bytes()).unwrap_or(&inner.image);
    let ahead = state.lifeline.as_ref().and_then(|item| core.keys.open_lifeline(item));
    let ahead = ahead.is_some_and(|lifeline| lifeline.generation() > core.keys.generation());
    let published = pending_bytes == 0 && state.head.is_some() && driver.is_none_or(Driver::published_all);
    let confirmed_seconds_ago = driver.and_then(Driver::confirmed_seconds_ago);
    let record_time = core.record_time(&inner);
    let store_bytes = core.store_bytes();
    let seq = state.accepted.as_ref().map(|item| item.seq);
    let freshness = driver.filter(|_| serving).map(|driver| driver.freshness_in_words(seq, record_time));
    let freshness = freshness.unwrap_or_default();
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    Status {
        name: core.name.to_string(),
        database: core.keys.database.to_string(),
        pid: serving.then(std::process::id),
        shares_process: false,
        uptime_seconds: driver.filter(|_| serving).map(Driver::uptime_seconds),
        socket: serving.then(|| core.paths.socket.display().to_string()),
        listen: driver.and_then(Driver::listen).map(|address| address.to_string()),
        key: core.keys.database_public.to_string(),
        capability: kind_name(core.keys.kind).into(),
        device: core.keys.device.public().to_string(),
        seq,
        confirmed_seconds_ago,
        record_time: record_time.map(i64::from),
        pending_bytes: if published { 0 } else { pending_bytes },
        published,
        root,
        versions: versions.collect(),
        peers: driver.map_or(0, Driver::peers),
        neighbours: driver.map_or(0, Driver::neighbours),
        connected: driver.map_or(Vec::new(), connected),
        dht_answers: driver.and_then(Driver::dht_answers),
        blocks: blocks.collect(),
        conflicts,
        refused: state.refusals.iter().cloned().collect(),
        image_bytes: image.bytes(),
        live_bytes: image.live_bytes(),
        here_bytes: image.bytes() - core.store.absent_bytes(image),
        on_demand: core.settings.on_demand,
        kept_versions: inner.versions.iter().count(),
        store_bytes,
        free_bytes: core.store.space().map_or(0, |space| space.free_bytes),
        quota_bytes: core.quota_bytes(),
        fetched_bytes,
        sent_bytes,
        mounted_at,
        shared_at: None,
        share: None,
        transfers: driver.map_or(Vec::new(), transfers),
        warnings: [
            moved_warnings(core, ahead).into_iter().collect(),
            driver.filter(|driver| driver.life.met_rival()).map(|_| RIVAL.into()).into_iter().collect(),
            core.own_in_words(),
            core.dead_link(state),
            core.full_in_words().into_iter().collect(),
            driver
                .filter(|_| serving)
                .and_then(|driver| waiting_in_words(&inner, driver))
                .into_iter()
                .collect(),
            warnings(confirmed_seconds_ago, driver, serving, newest_named, freshness),
        ]
        .concat(),
        counters: Counters {
            pieces_hashed: load(&core.hashing.pieces_hashed),
            bytes_hashed: load(&core.hashing.bytes_hashed),
            published: load(&core.done.published),
            adopted: load(&core.done.adopted),
            merged: load(&core.done.merged),
            puts: load(&core.done.puts),
            reputs: load(&core.done.reputs),
            commits: load(&core.done.commits),
            logged: load(&core.done.logged),
        },
    }
}

fn connected(driver: &Driver) -> Vec<NeighbourStatus> {
    let status = |(address, seconds): (std::net::SocketAddr, f64)| NeighbourStatus {
        address: address.to_string(),
        seconds,
    };
    driver.connected().into_iter().map(status).collect()
}

fn transfers(driver: &Driver) -> Vec<TransferStatus> {
    let transfer = |(infohash, total_bytes, missing): (InfoHash, u64, u64)| TransferStatus {
        infohash: infohash.to_string(),
        total_bytes,
        done_bytes: total_bytes.saturating_sub(missing),
    };
    driver.transfers().into_iter().map(transfer).collect()
}

fn moved_warnings(core: &Core, ahead: bool) -> Option<String> {
    let waiting = "the database moved to new keys, and nobody was found yet who passes them on";
    let left_out = if core.keys.kind == Kind::Admin { LEFT_OUT_WITH_ADMIN_KEY } else { LEFT_OUT };
    ahead.then(|| if core.left_out().is_some() { left_out.into() } else { waiting.into() })
}

fn warnings(
    confirmed: Option<f64>,
    driver: Option<&Driver>,
    serving: bool,
    newest: Option<InfoHash>,
    freshness: Vec<String>,
) -> Vec<String> {
    let mut warnings = freshness;
    warnings.extend(newest.and_then(|newest| driver?.unfit_in_words(&newest)));
    if serving && driver.is_some_and(|driver| driver.listen().is_none()) {
        warnings.push(
            "offline: changes are kept and published when the engine is started without --offline".into(),
        );
    } else if confirmed.is_some_and(|seconds| seconds > STALE_SECONDS) {
        warnings.push(
            "the DHT has not confirmed this state for more than a day: what is shown may be old".into(),
        );
    }
    warnings
}
