//! How fresh the record in force is: what the DHT confirmed, when it was signed by its own word, and whether all are shown the
//! same one.
//!
//! Whoever stands between a device and the DHT can go on answering with a record that was the newest once. That looks
//! confirmed each time; but every day somebody who is online signs the record anew, so what is shown grows old.

use super::core::{Core, Inner, now_seconds};
use super::drive::Driver;
use crate::record::Record;
use crate::sync::Input;
use std::time::{Duration, Instant};

const DAY_SECONDS: u32 = 86_400;
/// A record that was signed so long ago is signed anew by whoever may.
const RENEW_SECONDS: u32 = DAY_SECONDS;
/// No device does so more often than that, whatever it is shown.
const RENEW_PAUSE: Duration = Duration::from_secs(20 * 3_600);
/// One that was signed so long ago is worth a word: those who may sign were not online, or it is kept from this device
/// that they were.
const OLD_SECONDS: u32 = 2 * DAY_SECONDS;

/// What was heard of the record.
#[derive(Default)]
pub(super) struct Freshness {
    /// When the DHT last confirmed that nothing is newer.
    pub confirmed: Option<Instant>,
    /// When this device last set out to sign the record anew.
    renewed: Option<Instant>,
    /// The last number under which two records were met.
    forked: Option<i64>,
}

/// Seconds between two clocks, and which is ahead.
fn age(signed: u32, now: u32) -> (u32, bool) {
    (signed.abs_diff(now), signed > now)
}

/// What a person should know of a record that was signed at a time, both in seconds since 1970.
fn aged_in_words(signed: u32, now: u32) -> Option<String> {
    match age(signed, now) {
        (seconds, true) if seconds > DAY_SECONDS => Some(format!(
            "the record in force was signed {} days ahead of this device's clock: one of the two clocks is wrong, and devices \
             whose clocks differ by days do not find each other",
            seconds / DAY_SECONDS
        )),
        (seconds, false) if seconds > OLD_SECONDS => Some(format!(
            "the record in force was signed {} days ago, and it is signed anew each day: either nobody who may was online, or \
             somebody shows this device an old state",
            seconds / DAY_SECONDS
        )),
        _ => None,
    }
}

impl Core {
    /// When the record in force was signed, by the clock of who did, in seconds since 1970.
    pub(super) fn record_time(&self, inner: &Inner) -> Option<u32> {
        let item = inner.state.accepted.as_ref()?;
        Some(Record::decode(&self.keys.record, &item.value).ok()?.time)
    }
}

impl Driver {
    /// Seconds since the DHT last confirmed that nothing is newer.
    pub fn confirmed_seconds_ago(&self) -> Option<f64> {
        Some(self.facts.lock().fresh.confirmed?.elapsed().as_secs_f64())
    }

    /// Sees to it that a record which was signed long ago, or by a clock that is far ahead, is signed anew.
    pub(super) fn keep_fresh(&self) {
        if !self.core.keys.publishes() || self.net().is_none() {
            return;
        }
        let signed = self.core.record_time(&self.core.inner());
        let due = signed.is_some_and(|signed| age(signed, now_seconds()).0 > RENEW_SECONDS);
        let fresh = &mut self.facts.lock().fresh;
        if due && fresh.renewed.is_none_or(|last| last.elapsed() > RENEW_PAUSE) {
            fresh.renewed = Some(Instant::now());
            tracing::info!(
                "the record in force was signed long ago, or by a clock that is ahead: it is signed anew"
            );
            self.tell(Input::Aged);
        }
    }

    /// Two records under one number were met.
    pub(super) fn note_fork(&self, seq: i64) {
        let fresh = &mut self.facts.lock().fresh;
        if fresh.forked != Some(seq) {
            // Everyday where two publish at one time; `status` warns where nobody merges them.
            tracing::info!(seq, "two records of one number: both are taken, and merged by who may write");
        }
        fresh.forked = Some(seq);
    }

    /// What a person should know of the record in force.
    pub(super) fn freshness_in_words(&self, seq: Option<i64>, signed: Option<u32>) -> Vec<String> {
        let mut words = Vec::new();
        words.extend(signed.and_then(|signed| aged_in_words(signed, now_seconds())));
        if seq == Some(i64::MAX) {
            words.push(
                "the record stands under the last number that there is, so that nothing new can be put under this \
                 database's key: somebody with a write link did that; the admin ends it with `kilofs rotate`, or with `kilofs \
                 member NAME remove` where it is known who it was"
                    .into(),
            );
        }
        let forked = self.facts.lock().fresh.forked;
        // Two who publish at one time make such a pair, and the next record is that of their merge: nobody need know.
        if let Some(forked) = forked.filter(|forked| seq.is_none_or(|seq| seq <= *forked)) {
            words.push(format!(
                "two records of number {forked} were met, and nobody who may write has merged them: devices that do not hear of \
                 each other published at one time, or somebody shows different states to different devices"
            ));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_of_1970_and_of_2106_are_spoken_of() {
        let now = 1_800_000_000;
        let words = |signed| aged_in_words(signed, now).unwrap_or_default();
        assert_eq!(words(now), "");
        assert_eq!(words(now - 40 * 3_600), "", "who may sign sleeps at night");
        assert_eq!(words(now + 3_600), "");
        assert!(words(now - 3 * DAY_SECONDS).contains("signed 3 days ago"));
        assert!(words(0).contains("signed 20833 days ago"));
        assert!(words(u32::MAX).contains("days ahead of this device's clock"));
        assert!(aged_in_words(now, 0).unwrap_or_default().contains("ahead"), "a device without a clock");
    }
}
