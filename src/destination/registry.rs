//! A registry as a destination, and as the place that layers known only from a registry are brought from.

use super::{PublishError, Published};
use crate::oci::{LayerBytes, Publishable, Reference};
use crate::registry::{Known, Registry};
use crate::reporter::Reporter;
use crate::store::Store;

/// Pushes `image` into `target`'s repository; each of `tags` names it afterwards. Layers that are only in another registry
/// are brought into `store` first; those in `target`'s registry never travel, and what is `known` to be in the repository is not asked for.
pub async fn publish(
    registry: &Registry,
    target: &Reference,
    tags: &[&str],
    image: &Publishable,
    known: &Known,
    store: &Store,
    reporter: &dyn Reporter,
) -> Result<Published, PublishError> {
    let pushed = registry.push(target, tags, image, known, store, reporter).await?;
    Ok(Published {
        digest: image.digest(),
        location: format!("{}@{}", target.name(), image.digest()),
        reused: pushed.reused,
        reused_layers: pushed.reused_layers,
        sent: pushed.sent,
        sent_layers: pushed.sent_layers,
    })
}

/// `image` with every layer's bytes in `store`: for destinations that are no registry.
pub async fn bring(
    registry: &Registry,
    mut image: Publishable,
    store: &Store,
    reporter: &dyn Reporter,
) -> Result<Publishable, PublishError> {
    for one in image.images_mut() {
        for layer in &mut one.layers {
            if matches!(layer.bytes, LayerBytes::Remote(_)) {
                layer.bytes = LayerBytes::File(registry.layer(layer, store, reporter).await?);
            }
        }
    }
    Ok(image)
}
