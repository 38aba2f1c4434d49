//! A command's line to a database: the running engine where there is one, else the database opened in this process.

use super::context::Context;
use crate::crypt::keyring::Keyring;
use crate::daemon::client::{self, Asked};
use crate::daemon::control::{Failure, FailureKind, Reply, Request};
use crate::daemon::engine::{self, Local};
use crate::daemon::home::{DatabasePaths, Name};
use crate::daemon::launch::{Launch, Role};
use serde_json::Value;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an answer may take that needs no network.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// The same for how it is: an engine that is stopped, or stuck, is to be known as that.
pub const STATUS_DEADLINE: Duration = Duration::from_secs(10);

/// How long an engine that holds a store may take to answer, and how often it is asked.
const STARTING_PATIENCE: Duration = Duration::from_secs(5);
const STARTING_PAUSE: Duration = Duration::from_millis(50);

/// One command's line to one database.
pub struct Session<'a> {
    context: &'a Context,
    name: &'a Name,
    paths: DatabasePaths,
    network: bool,
    rescue: bool,
    keyring: Option<Keyring>,
    local: Option<Local>,
}

impl<'a> Session<'a> {
    /// A line to a database that exists. `network` says whether the command needs the network where it has to open
    /// the database itself.
    pub fn new(context: &'a Context, name: &'a Name, network: bool) -> Result<Session<'a>, Failure> {
        let paths = context.existing(name)?;
        Ok(Session { context, name, paths, network, rescue: false, keyring: None, local: None })
    }

    /// Hands over a keyring that the command has opened already, so that no passphrase is asked for twice.
    pub fn with_keyring(mut self, keyring: Keyring) -> Session<'a> {
        self.keyring = Some(keyring);
        self
    }

    /// Opens a damaged store too, to look at it or to repair it.
    pub fn rescuing(mut self) -> Session<'a> {
        self.rescue = true;
        self
    }

    /// Asks for something that needs no network.
    pub fn ask(&mut self, request: Request) -> Result<Value, Failure> {
        let deadline = if matches!(request, Request::Status) { STATUS_DEADLINE } else { ANSWER_DEADLINE };
        self.ask_within(request, deadline)
    }

    /// Asks the engine, if one runs, for at most `deadline`; else does it here.
    pub fn ask_within(&mut self, request: Request, deadline: Duration) -> Result<Value, Failure> {
        if self.local.is_none() {
            match client::ask(&self.paths.socket, &request, deadline) {
                Asked::Answered(answer) if !is_to_be_asked_again(&request, &answer) => return answer,
                Asked::Answered(_) | Asked::NoEngine | Asked::Stale => match self
                    .await_engine(&request, deadline)
                {
                    Some(answer) => return answer,
                    None => match self.open() {
                        Ok(local) => self.local = Some(local),
                        // An engine that started just now was faster.
                        Err(failure) => return self.await_engine(&request, deadline).unwrap_or(Err(failure)),
                    },
                },
            }
        }
        let Some(local) = &self.local else {
            return Err(Failure::failed(format!("{} could not be opened", self.name)));
        };
        match local.handle(request) {
            Reply::Done(value) => Ok(value),
            Reply::Failed(failure) => Err(failure),
        }
    }

    /// The answer of an engine that is just starting: it holds the store before it answers. One that is just ending holds
    /// it for a while longer.
    fn await_engine(&self, request: &Request, deadline: Duration) -> Option<Result<Value, Failure>> {
        let end = Instant::now() + STARTING_PATIENCE;
        while is_held(&self.paths.store) && Instant::now() < end {
            std::thread::sleep(STARTING_PAUSE);
            if let Asked::Answered(answer) = client::ask(&self.paths.socket, request, deadline)
                && !is_to_be_asked_again(request, &answer)
            {
                return Some(answer);
            }
        }
        None
    }

    fn open(&mut self) -> Result<Local, Failure> {
        let keyring = match self.keyring.take() {
            Some(keyring) => keyring,
            None => self.context.open_keyring(self.name)?,
        };
        let options = self.context.options(self.name)?;
        let role = Role::Command { network: self.network, rescue: self.rescue };
        let held = keyring.capability.kind();
        engine::local(Launch {
            home: self.context.home.clone(),
            name: self.name.clone(),
            keyring,
            held,
            options,
            role,
        })
    }
}

/// Whether an engine ended over a question that the store, or the next engine, can answer as well.
pub fn is_to_be_asked_again(request: &Request, answer: &Result<Value, Failure>) -> bool {
    request.only_looks() && answer.as_ref().is_err_and(|failure| failure.kind == FailureKind::Ended)
}

/// Whether another process holds a store.
fn is_held(store: &Path) -> bool {
    File::open(store).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}
