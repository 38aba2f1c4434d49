//! What is alive in each region of an arrived image, which only the difference to what is here tells.

use super::core::Core;
use super::error::EngineError;
use super::take::{Arrived, Plan};
use crate::image::Image;
use crate::map::{Map, Root};
use crate::tree::ImageSource;

impl Core {
    /// The arrived image with live counts: those of the old head, less what is gone, plus what is new.
    pub(super) fn with_live(&self, arrived: &Arrived, plan: &Plan) -> Result<Image, EngineError> {
        let inner = self.inner();
        let old = inner.state.head.and_then(|head| inner.versions.get(&head.infohash)).cloned();
        drop(inner);
        let mut delta = plan.live.clone();
        let keys = self.keys.catalogue.as_ref().ok_or(EngineError::Capability("mirror"))?;
        if let Some(old) = &old
            && let Some(commit) = &old.commit
        {
            delta.remove(old.reference.commit.place);
            delta.remove(commit.charter.place);
            let source = ImageSource::new(&self.store, &old.image);
            let root = commit.catalogue.as_ref().map(|(root, place)| Root {
                level: root.level,
                id: root.id,
                place: *place,
            });
            Map::new(keys, &source, &self.nodes)
                .each_node(root.as_ref(), &mut |place| delta.remove(place))?;
        }
        delta.add(arrived.reference.commit.place);
        delta.add(arrived.commit.charter.place);
        let source = ImageSource::new(&self.store, &arrived.image);
        Map::new(keys, &source, &self.nodes)
            .each_node(arrived.catalogue.as_ref(), &mut |place| delta.add(place))?;
        let empty = Image::empty(&self.store);
        let old = old.map_or(empty, |version| version.image);
        Ok(arrived.image.with_live_since(&old, delta.regions()))
    }
}
