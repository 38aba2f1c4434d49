//! Answers the commands of the control protocol.

use super::answers::{Held, Synced};
use super::control::{Failure, FailureKind, Reply, Request};
use super::core::{Core, process_owner};
use super::drive::Driver;
use super::error::EngineError;
use super::history;
use super::members::members;
use super::moves::Announced;
use super::report::status;
use super::restore;
use crate::base::{BlockNumber, Malformed};
use crate::record::Charter;
use crate::share::Share;
use crate::sync::Input;
use crate::tree::{Changes, FileType, ReadTree, Tree, TreeError};
use data_encoding::HEXLOWER_PERMISSIVE;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const DIRECTORY_MODE: u16 = 0o755;
/// How long a command waits for bytes that are not here.
const FAULT_PATIENCE: Duration = Duration::from_secs(30);

/// What a command is answered from.
pub struct Desk {
    /// The database.
    pub core: Arc<Core>,
    /// Its driver.
    pub driver: Arc<Driver>,
    /// Whether this process is an engine, or only answers one command.
    pub serving: bool,
    /// Whether other engines live in this process, so that its end is not this one's.
    pub among: bool,
    /// Where it is mounted.
    pub mounted_at: Option<String>,
    /// The folder that is shared.
    pub share: OnceLock<Arc<Share>>,
}

impl Desk {
    /// Answers a request; [`Request::Stop`] is the server's own business.
    pub async fn answer(self: Arc<Self>, request: Request) -> Reply {
        let answered = match request {
            Request::Sync { timeout_seconds } => {
                let timeout = Duration::try_from_secs_f64(timeout_seconds).unwrap_or(Duration::from_secs(60));
                let synced = self.driver.sync(timeout).await;
                // What is said of what was left behind matters more than how looking for it ended.
                if self.core.keys.left_out.load(Ordering::Relaxed) {
                    Err(EngineError::LeftOut)
                } else {
                    synced.map(|()| self.synced())
                }
            }
            Request::Repair => self.driver.repair().await.map(|checked| json!(checked)),
            other => {
                let desk = self.clone();
                let task = tokio::task::spawn_blocking(move || desk.decide(other));
                task.await.unwrap_or_else(|error| Err(EngineError::Other(error.to_string())))
            }
        };
        match answered {
            Ok(value) => Reply::Done(value),
            Err(error) => Reply::Failed(Failure::from(error)),
        }
    }

    fn synced(&self) -> Value {
        let pending_bytes = self.core.pending_bytes();
        let seq = self.core.inner().state.accepted.as_ref().map(|item| item.seq);
        let root = self.core.content_root().map(|id| id.to_string());
        json!(Synced { published: pending_bytes == 0, pending_bytes, seq, root })
    }

    /// The status object.
    pub fn status(&self) -> Value {
        let mut status = status(&self.core, Some(&self.driver), self.serving, self.mounted_at.clone());
        status.shares_process = self.among;
        (status.shared_at, status.share) = self.share_status();
        serde_json::to_value(status).unwrap_or(Value::Null)
    }

    fn decide(&self, request: Request) -> Result<Value, EngineError> {
        match request {
            Request::Status => Ok(self.status()),
            Request::Versions => Ok(history::versions(&self.core)),
            Request::Log { limit, paths } => Ok(history::log(&self.core, limit, paths)),
            Request::Difference { older, newer } => history::difference(&self.core, older, newer),
            Request::Restore { version, path_hex, to_hex } => {
                let path = bytes(&path_hex)?;
                let to = to_hex.map(|hex| bytes(&hex)).transpose()?;
                let mut changes = Changes::default();
                let runtime = tokio::runtime::Handle::current();
                let fault = |place| {
                    let deadline = tokio::time::Instant::now() + FAULT_PATIENCE;
                    runtime.block_on(self.driver.fault_for(place, None, deadline))
                };
                let value = restore::restore(&self.core, version, &path, to.as_deref(), &mut changes, &fault);
                self.driver.told(changes);
                self.driver.tell(Input::Changed);
                value
            }
            Request::Policy => Ok(json!(self.core.ground()?)),
            Request::Holds { block } => {
                let used = self.core.holds_here(BlockNumber(block))?;
                let most = |count: i128| u64::try_from(count).unwrap_or(u64::MAX);
                Ok(json!(Held { bytes: most(used.bytes), files: most(used.files) }))
            }
            Request::Devices => Ok(json!(self.core.makers())),
            Request::Enact { policy_hex, charter_hex, ground, lifeline_hex, listing } => {
                let encoded = (&*policy_hex, &*charter_hex, &*lifeline_hex);
                let changes = self.core.enact_encoded(encoded, &ground, &listing)?;
                self.driver.announce_again();
                self.driver.told(changes);
                self.driver.tell(Input::Changed);
                Ok(Value::Null)
            }
            Request::Lost => Ok(json!(self.core.lost())),
            Request::Forget => self.core.forget_lost().map(|()| Value::Null),
            Request::Members => Ok(json!(members(&self.core))),
            Request::Rotate { announced_hex, ground } => {
                let malformed = |_| EngineError::Usage("the announcement is malformed".into());
                let announced = Announced::decode(&bytes(&announced_hex)?).map_err(malformed)?;
                self.driver.look_before_moving();
                let changes = self.core.rotate(&announced, &ground)?;
                self.driver.turned_here(announced, changes);
                Ok(Value::Null)
            }
            Request::Prepare { paths_hex } => {
                let mut changes = Changes::default();
                let paths = paths_hex.iter().map(|hex| bytes(hex)).collect::<Result<Vec<_>, _>>()?;
                let tree = self.core.tree()?;
                let prepare = |path: &Vec<u8>| prepare(tree, path, &mut changes);
                let prepared: Result<Vec<bool>, _> = paths.iter().map(prepare).collect();
                self.driver.told(changes);
                let empty = prepared?.into_iter().all(|empty| empty);
                self.core.persist()?;
                self.driver.tell(Input::Changed);
                Ok(json!({ "empty": empty }))
            }
            Request::Recut { charter_hex } => {
                let charter = Charter::decode(&bytes(&charter_hex)?)
                    .map_err(|_| EngineError::Usage("the charter is malformed".into()))?;
                Ok(json!(self.core.prepare_recut(&charter)?))
            }
            Request::Pins { paths_hex } => {
                let paths = paths_hex.iter().map(|hex| bytes(hex)).collect::<Result<_, _>>()?;
                self.driver.pin(paths);
                Ok(Value::Null)
            }
            Request::Check => Ok(json!(history::check(&self.core))),
            Request::Sync { .. } | Request::Repair | Request::Stop { .. } => {
                Err(EngineError::Usage("this command is not answered here".into()))
            }
        }
    }
}

pub(super) fn bytes(hex: &str) -> Result<Vec<u8>, EngineError> {
    let decoded = HEXLOWER_PERMISSIVE.decode(hex.as_bytes());
    decoded.map_err(|_| EngineError::Usage(format!("malformed bytes in a command: {Malformed}")))
}

/// Makes sure that there is a directory at a path; its parents are made where they are missing. Tells whether it is empty.
pub(super) fn prepare(tree: &Tree, path: &[u8], changes: &mut Changes) -> Result<bool, EngineError> {
    let named = || String::from_utf8_lossy(path).into_owned();
    let mut directory = crate::base::BlockNumber::ROOT.root_inode();
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        directory = match tree.lookup(directory, name) {
            Ok(attr) => attr.inode,
            Err(TreeError::NotFound) => {
                changes.entries.push((directory, name.to_vec()));
                changes.directories.push(directory);
                tree.make_dir(directory, name, DIRECTORY_MODE, process_owner())?.inode
            }
            Err(error) => return Err(error.into()),
        };
    }
    if tree.attr(directory)?.file_type != FileType::Directory {
        return Err(EngineError::Other(format!("/{} is not a directory", named())));
    }
    let children = tree.read_dir(directory, 0)?;
    Ok(children.iter().all(|item| item.name == b"." || item.name == b".."))
}

/// A failure for a request that the protocol does not know.
pub fn unknown_request(error: &serde_json::Error) -> Reply {
    Reply::Failed(Failure::new(
        FailureKind::Usage,
        format!(
            "the engine does not know this command ({error}); is it of another version? Unmount and mount again"
        ),
    ))
}
