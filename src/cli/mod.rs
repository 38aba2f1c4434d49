//! Floor 6: the command line. One file a group of commands; each turns arguments into a request to an engine, and the
//! answer into lines for a person or JSON for a script. Results go to stdout, everything else to stderr.
//!
//! Nothing here knows formats or keys beyond what an admin needs to sign a policy.

mod arguments;
mod background;
mod block;
mod code;
mod completions;
mod context;
mod create;
mod device;
mod doctor;
mod enact;
mod engine;
mod fsck;
mod history;
mod invite;
mod join;
mod link;
mod logging;
mod member;
mod metrics;
mod mirror;
mod mount;
mod output;
mod passphrase;
mod passphrase_command;
mod paths;
mod peek;
mod pin;
mod policy;
mod private;
mod progress;
mod rates;
mod recovery;
mod rekey;
mod seen;
mod session;
mod share;
mod status;
mod sync;
mod terminal;
mod testnet;
mod text;
mod umount;
mod unlock;
mod view;
mod watch;

use crate::crypt::locked::shut_process;
use crate::daemon::control::Failure;
use arguments::{Arguments, Command};
use clap::Parser;
use context::Context;
use std::io::Write;
use std::process::ExitCode;

/// What every command comes to.
type Outcome = Result<(), Failure>;

/// The program: parses the arguments (exit code 2 where they are wrong), runs the command, says what went wrong.
pub fn main() -> ExitCode {
    // Before any secret is here.
    let open = shut_process();
    let arguments = Arguments::parse();
    match run(arguments, &open) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to hear that stderr is closed.
            _ = writeln!(std::io::stderr(), "kilofs: {}", output::shown(failure.message.as_bytes()));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: Arguments, open: &[String]) -> Outcome {
    let context = Context::new(arguments.globals)?;
    if !matches!(arguments.command, Command::Engine(_)) {
        logging::to_terminal(context.verbose);
        logging::tell(open);
    }
    match arguments.command {
        Command::Create(command) => create::run(&context, command),
        Command::Link(command) => link::run(&context, command),
        Command::Invite(command) => invite::run(&context, command),
        Command::Join(command) => join::run(&context, command),
        Command::Passphrase(command) => rekey::run(&context, command),
        Command::Unlock(command) => unlock::unlock(&context, command),
        Command::Lock(command) => unlock::lock(&context, command),
        Command::Mount(command) => mount::mount(&context, command),
        Command::Mirror(command) => mirror::run(&context, command),
        Command::Share(command) => share::run(&context, command),
        Command::Umount(command) => umount::run(&context, command),
        Command::Status(command) => status::run(&context, command),
        Command::Sync(command) => sync::run(&context, command),
        Command::Block(command) => block::run(&context, command),
        Command::Policy(command) => policy::run(&context, command),
        Command::Member(command) => member::run(&context, command),
        Command::Rotate(command) => member::rotate(&context, command),
        Command::Versions(command) => history::versions(&context, command),
        Command::Metrics(command) => metrics::run(&context, command),
        Command::Log(command) => history::log(&context, command),
        Command::Diff(command) => history::diff(&context, command),
        Command::Pin(command) => pin::pin(&context, command),
        Command::Unpin(command) => pin::unpin(&context, command),
        Command::Restore(command) => history::restore(&context, command),
        Command::Fsck(command) => fsck::run(&context, command),
        Command::Doctor => doctor::run(&context),
        Command::Completions(command) => completions::run(command),
        Command::Testnet(command) => testnet::run(&context, command),
        Command::Peek(command) => peek::run(command),
        Command::Engine(command) => engine::run(&context, command, open),
    }
}
