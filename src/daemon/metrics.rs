//! What engines tell a monitoring system, in the text format of Prometheus, version 0.0.4.

use super::client::{self, Asked};
use super::control::Request;
use super::home::{Home, Name};
use super::status::Status;
use std::fmt::Write;
use std::time::Duration;

/// What HTTP calls the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// An engine that takes longer counts as down.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);
/// So many engines are asked at a time.
const ASKED_MAX: usize = 16;

/// One database at one moment.
#[derive(Debug)]
pub struct Sample {
    /// What it is called on this device.
    pub name: Name,
    /// What its engine says; none where no engine runs or none answers.
    pub status: Option<Status>,
}

/// Asks the engines of these databases; takes a few seconds at most for each sixteen that do not answer.
pub fn collect(home: &Home, names: Vec<Name>) -> Vec<Sample> {
    let look = |name: Name| {
        let socket = home.database(&name).socket;
        let status = match client::ask(&socket, &Request::Status, ANSWER_DEADLINE) {
            Asked::Answered(Ok(answer)) => serde_json::from_value(answer).ok(),
            Asked::Answered(Err(_)) | Asked::NoEngine | Asked::Stale => None,
        };
        Sample { name, status }
    };
    let mut samples = Vec::with_capacity(names.len());
    for some in names.chunks(ASKED_MAX) {
        std::thread::scope(|scope| {
            let asking: Vec<_> = some.iter().map(|name| scope.spawn(|| look(name.clone()))).collect();
            let answers = asking.into_iter().zip(some);
            samples.extend(answers.map(|(asked, name)| {
                asked.join().unwrap_or_else(|_| Sample { name: name.clone(), status: None })
            }));
        });
    }
    samples
}

/// The text over all databases of a home.
pub fn of_home(home: &Home) -> String {
    let names = home.names().unwrap_or_else(|error| {
        tracing::warn!(%error, "the databases cannot be listed");
        Vec::new()
    });
    exposition(&collect(home, names))
}

struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// The value; none where there is nothing to tell.
    value: fn(&Status) -> Option<f64>,
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&Status) -> Option<f64>) -> Family {
    Family { name, kind: "gauge", help, value }
}

const fn counter(name: &'static str, help: &'static str, value: fn(&Status) -> Option<f64>) -> Family {
    Family { name, kind: "counter", help, value }
}

/// All but `kilofs_up`, which is told of every database. Above 2^53 a count is rounded, as Prometheus does itself.
const FAMILIES: [Family; 28] = [
    gauge("kilofs_uptime_seconds", "Time since the engine started.", |s| s.uptime_seconds),
    gauge("kilofs_mounted", "1 if the database is mounted.", |s| Some(f64::from(s.mounted_at.is_some()))),
    counter("kilofs_fetched_bytes_total", "Bytes fetched from peers since the database came here.", |s| {
        Some(s.fetched_bytes as f64)
    }),
    counter("kilofs_sent_bytes_total", "Bytes sent to peers since the database came here.", |s| {
        Some(s.sent_bytes as f64)
    }),
    gauge("kilofs_peers", "Peers heard of lately.", |s| Some(s.peers as f64)),
    gauge("kilofs_neighbours", "Peers that are connected and told news at once.", |s| {
        Some(s.neighbours as f64)
    }),
    gauge("kilofs_record_seq", "Number of the highest record accepted.", |s| s.seq.map(|seq| seq as f64)),
    gauge("kilofs_confirmed_age_seconds", "Time since the DHT confirmed that nothing is newer.", |s| {
        s.confirmed_seconds_ago
    }),
    gauge("kilofs_record_versions", "Versions that the record names.", |s| Some(s.versions.len() as f64)),
    gauge("kilofs_record_versions_complete", "Versions of the record that are here.", |s| {
        Some(s.versions.iter().filter(|version| version.complete).count() as f64)
    }),
    gauge("kilofs_newest_version_complete", "1 if the newest version of the record is here.", |s| {
        s.versions.first().map(|newest| f64::from(newest.complete))
    }),
    gauge("kilofs_kept_versions", "Versions that are kept, those of the record and others.", |s| {
        Some(s.kept_versions as f64)
    }),
    gauge("kilofs_image_bytes", "Length of the image.", |s| Some(s.image_bytes as f64)),
    gauge("kilofs_live_bytes", "Bytes of the image that are in use.", |s| Some(s.live_bytes as f64)),
    gauge("kilofs_here_bytes", "Bytes of the image that are here.", |s| Some(s.here_bytes as f64)),
    gauge("kilofs_store_bytes", "What the store takes, in whole slots.", |s| Some(s.store_bytes as f64)),
    gauge("kilofs_quota_bytes", "What the store of a mirror may take.", |s| {
        s.quota_bytes.map(|bytes| bytes as f64)
    }),
    gauge("kilofs_free_bytes", "What is free beside the store.", |s| Some(s.free_bytes as f64)),
    gauge("kilofs_missing_bytes", "Bytes that the transfers under way still miss.", |s| {
        let missing = s.transfers.iter().map(|one| one.total_bytes.saturating_sub(one.done_bytes));
        Some(missing.sum::<u64>() as f64)
    }),
    gauge("kilofs_pending_bytes", "Bytes of changes that no record names yet.", |s| {
        Some(s.pending_bytes as f64)
    }),
    gauge("kilofs_conflicts", "Conflict copies that still exist.", |s| Some(s.conflicts.len() as f64)),
    gauge("kilofs_refusals", "What was refused and is remembered.", |s| Some(s.refused.len() as f64)),
    gauge("kilofs_warnings", "Warnings that status shows.", |s| Some(s.warnings.len() as f64)),
    counter("kilofs_published_total", "Versions published since the engine started.", |s| {
        Some(s.counters.published as f64)
    }),
    counter("kilofs_adopted_total", "Versions taken from others since the engine started.", |s| {
        Some(s.counters.adopted as f64)
    }),
    counter("kilofs_merged_total", "Versions merged since the engine started.", |s| {
        Some(s.counters.merged as f64)
    }),
    counter("kilofs_record_puts_total", "Records put since the engine started.", |s| {
        Some(s.counters.puts as f64)
    }),
    counter("kilofs_record_reputs_total", "Records and lifelines put back since the engine started.", |s| {
        Some(s.counters.reputs as f64)
    }),
];

/// The samples as text. A family of which no database tells anything is left out.
pub fn exposition(samples: &[Sample]) -> String {
    let mut text = String::new();
    let up = |sample: &Sample| Some(f64::from(sample.status.is_some()));
    family(&mut text, ("kilofs_up", "gauge", "1 if an engine runs and answers."), samples, up);
    for Family { name, kind, help, value } in FAMILIES {
        family(&mut text, (name, kind, help), samples, |sample| value(sample.status.as_ref()?));
    }
    text
}

fn family(
    text: &mut String,
    (name, kind, help): (&str, &str, &str),
    samples: &[Sample],
    value: impl Fn(&Sample) -> Option<f64>,
) {
    let mut told = samples.iter().filter_map(|sample| Some((sample, value(sample)?))).peekable();
    if told.peek().is_none() {
        return;
    }
    // Writing to a string does not fail.
    _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (sample, value) in told {
        let database = sample.status.as_ref().map_or("", |status| status.database.as_str());
        let (database, called) = (escaped(database), escaped(sample.name.as_str()));
        _ = writeln!(text, "{name}{{database=\"{database}\",name=\"{called}\"}} {value}");
    }
}

/// A label's value: backslash, quote and line feed are escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_hostile_label_stays_one_label() {
        assert_eq!(escaped("a\"} 1\n\\"), "a\\\"} 1\\n\\\\");
    }

    #[test]
    fn one_that_is_down_is_told_as_such_and_nothing_else() {
        let name = |text: &str| Name::new(text).unwrap();
        let status = Status { database: "ab".into(), seq: Some(7), ..Status::default() };
        let samples =
            [Sample { name: name("a"), status: Some(status) }, Sample { name: name("b"), status: None }];
        let text = exposition(&samples);
        assert!(text.contains("kilofs_up{database=\"ab\",name=\"a\"} 1\n"), "{text}");
        assert!(text.contains("kilofs_up{database=\"\",name=\"b\"} 0\n"), "{text}");
        assert!(text.contains("kilofs_record_seq{database=\"ab\",name=\"a\"} 7\n"), "{text}");
        assert_eq!(text.matches("name=\"b\"").count(), 1, "{text}");
        assert!(!text.contains("kilofs_quota_bytes"), "{text}");
    }

    #[test]
    fn every_family_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = FAMILIES.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), FAMILIES.len());
        for family in FAMILIES {
            assert_eq!(family.name.ends_with("_total"), family.kind == "counter", "{}", family.name);
        }
    }
}
