//! `kilofs metrics`: what the engines tell a monitoring system, once, on stdout.

use super::Outcome;
use super::context::Context;
use crate::daemon::control::Failure;
use crate::daemon::home::Name;
use crate::daemon::metrics;
use clap::Args;
use serde_json::json;

/// Prints metrics of the running engines in the text format of Prometheus.
#[derive(Args)]
pub struct Metrics {
    /// The database; all without it
    #[arg(value_parser = Name::new)]
    name: Option<Name>,
}

/// Runs `metrics`.
pub fn run(context: &Context, Metrics { name }: Metrics) -> Outcome {
    let names = match name {
        Some(name) => {
            context.existing(&name)?;
            vec![name]
        }
        None => context
            .home
            .names()
            .map_err(|error| Failure::failed(format!("cannot list the databases: {error}")))?,
    };
    let samples = metrics::collect(&context.home, names);
    let statuses: Vec<_> = samples
        .iter()
        .map(|sample| json!({ "name": sample.name.as_str(), "status": sample.status }))
        .collect();
    context.output.result(&statuses, |_| metrics::exposition(&samples))
}
