//! Floor 4: the public DHT through `mainline`, the swarm through `librqbit`, and a private DHT for tests.
//!
//! Nothing here knows a key that opens anything: items come signed, images come sealed. Every wait has a deadline.

mod changes;
mod dht;
mod error;
mod fetch;
pub mod gossip;
mod lan;
mod nodelay;
pub mod scrape;
mod session;
mod storage;
mod swarm;
mod testnet;
mod upnp;

pub use changes::Changes;
pub use dht::{Dht, DhtOptions, Found};
pub use error::NetError;
pub use lan::{LAN_PORT, Lan, LanOptions, Nearby};
pub use session::SwarmOptions;
pub use swarm::{Swarm, Traffic};
pub use testnet::Testnet;
pub use upnp::Upnp;
