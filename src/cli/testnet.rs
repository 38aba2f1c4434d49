//! `kilofs testnet`: a private DHT in the foreground.

use super::Outcome;
use super::context::Context;
use crate::daemon::control::{Failure, FailureKind};
use crate::net::Testnet;
use clap::Args;
use serde_json::json;
use std::net::Ipv4Addr;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a private DHT until it is interrupted, for tests and for trials without the public one.
#[derive(Args)]
pub struct Run {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    nodes: u16,
    /// The first node's port; the others follow. 0 takes any
    #[arg(long, value_name = "P", default_value_t = 6881)]
    port: u16,
    /// The address of all nodes
    #[arg(long, value_name = "ADDR", default_value_t = Ipv4Addr::LOCALHOST)]
    bind: Ipv4Addr,
}

/// Runs `testnet`.
pub fn run(context: &Context, command: Run) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    runtime.block_on(serve(context, command))
}

async fn serve(context: &Context, command: Run) -> Outcome {
    let failed = |error: std::io::Error| Failure::failed(format!("cannot await signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let testnet = Testnet::start(command.bind, command.port, command.nodes)
        .await
        .map_err(|error| Failure::new(FailureKind::Unreachable, chain(&error)))?;
    for address in testnet.bootstrap() {
        context
            .output
            .result(&json!({ "bootstrap": address, "nodes": testnet.nodes() }), |_| address.clone())?;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
