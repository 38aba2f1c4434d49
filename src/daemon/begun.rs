//! Versions that are on their way: what has come of them is kept, so that a fetch that ends early goes on where it was
//! instead of from the start, after a crash too.

use super::core::{Core, Inner};
use super::demand::blocking;
use super::drive::Driver;
use super::error::EngineError;
use super::label::Label;
use super::transfer::missing_bytes;
use crate::base::InfoHash;
use crate::image::{Image, Incoming, Kept};
use crate::torrent::Metainfo;
use std::sync::Arc;

/// What is less comes again sooner than it is made durable.
const BEGUN_BYTES_MIN: u64 = 4 << 20;
/// So many are kept: while nobody has the newest version an older one is fetched.
pub(super) const BEGUN_MAX: usize = 2;

/// Versions of which a part is here and which nothing shows, the newest fetch last.
#[derive(Clone, Default)]
pub struct Begun(Vec<(InfoHash, Image)>);

impl Begun {
    /// Adds one; the oldest goes where there are too many.
    pub fn add(&mut self, infohash: InfoHash, image: Image) {
        self.0.retain(|(known, _)| *known != infohash);
        self.0.push((infohash, image));
        let excess = self.0.len().saturating_sub(BEGUN_MAX);
        self.0.drain(..excess);
    }

    /// All, the newest fetch first.
    pub fn iter(&self) -> impl Iterator<Item = &(InfoHash, Image)> {
        self.0.iter().rev()
    }

    /// Lets all go but those.
    pub fn retain(&mut self, keep: impl Fn(&InfoHash) -> bool) {
        self.0.retain(|(infohash, _)| keep(infohash));
    }

    /// As the store keeps them.
    pub fn kept(&self) -> impl Iterator<Item = Kept> {
        self.0.iter().map(|(infohash, image)| Kept {
            label: crate::image::Label(Label::Begun(*infohash).encode()),
            image: image.clone(),
        })
    }
}

impl Driver {
    /// Remembers whether nobody had a version when it was asked for.
    pub(super) fn note_source(&self, infohash: InfoHash, lacking: bool) {
        let named = self.core.named_versions(&self.core.inner());
        let sourceless = &mut self.facts.lock().demand.sourceless;
        sourceless
            .retain(|known| *known != infohash && named.iter().any(|version| version.infohash == *known));
        if lacking {
            sourceless.insert(infohash);
        }
    }

    fn is_sourceless(&self, infohash: &InfoHash) -> bool {
        self.facts.lock().demand.sourceless.contains(infohash)
    }

    /// Keeps what is here of a version and what comes in from now on, if much of it is missing.
    pub(super) async fn keep_begun(
        &self,
        metainfo: &Metainfo,
        incoming: &Arc<Incoming>,
    ) -> Result<(), EngineError> {
        if missing_bytes(incoming) < BEGUN_BYTES_MIN {
            return Ok(());
        }
        let (core, incoming, metainfo) = (self.core.clone(), incoming.clone(), metainfo.clone());
        blocking(move || {
            let infohash = metainfo.infohash();
            let image = incoming.finish_partial()?;
            core.cache.remember(&infohash, &metainfo);
            core.cache.flush();
            let mut inner = core.inner();
            inner.begun.add(infohash, image);
            Ok(core.save(&inner)?)
        })
        .await
    }
}

impl Core {
    /// Lets go what has come of a version that cannot be stored: the room that it takes may be what is lacking.
    pub(super) fn forget_begun(&self, infohash: &InfoHash) {
        let mut inner = self.inner();
        inner.begun.retain(|known| known != infohash);
        if let Err(error) = self.save(&inner) {
            tracing::debug!(%error, "what has come of a version is let go with the next commit");
        }
    }
}

/// That the newest version, or a part of it, is not here, and that nobody is known who would bring it.
pub(super) fn waiting_in_words(inner: &Inner, driver: &Driver) -> Option<String> {
    let core = &driver.core;
    let newest = core.named_versions(inner).first()?.infohash;
    let nobody = driver.neighbours() == 0 && driver.peers_of(newest) == 0;
    let alone = driver.listen().is_some() && (nobody || driver.is_sourceless(&newest));
    let kept = inner.versions.get(&newest);
    let whole = kept.is_some_and(|kept| core.settings.on_demand || core.store.is_whole(&kept.image));
    if !alone || whole || driver.unfit_in_words(&newest).is_some() {
        return None;
    }
    let here = |image: &Image| image.bytes() - core.store.absent_bytes(image);
    let shown = match (kept, inner.state.head) {
        (Some(_), _) => "not all of the newest version is here",
        (None, None) => "nothing is here yet",
        (None, Some(_)) => "the newest version is not here, an older one is",
    };
    let come = inner.begun.iter().find(|(infohash, _)| *infohash == newest);
    let come =
        come.map(|(_, image)| format!(" ({} of {} MiB have come)", here(image) >> 20, image.bytes() >> 20));
    Some(format!(
        "{shown}{}: no device that has it can be reached; it comes when one is online again",
        come.unwrap_or_default()
    ))
}
