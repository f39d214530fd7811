//! The options of a session, and the zenoh configuration made of them.
//!
//! Ours come first, zenoh's own keys (`config`) over them; a key or value that zenoh does not know
//! is refused with its path, before anything is opened.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zenoh::config::EndPoint;

use crate::{Error, Result};

/// What a session is to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One of a full mesh; serves clients that connect to it.
    #[default]
    Peer,
    /// Connected to one node that speaks for it.
    Client,
    /// Relays for others.
    Router,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Peer => "peer",
            Mode::Client => "client",
            Mode::Router => "router",
        }
    }
}

/// How a session is opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionOptions {
    /// `peer`, `client` or `router`. Default `peer`.
    pub mode: Mode,
    /// Endpoints to listen on, such as `tcp/0.0.0.0:7447`; a client listens on none. Default none.
    pub listen: Vec<String>,
    /// Endpoints to connect to. Those that are in `listen` too are left out, so that all nodes may
    /// have the same list. Default none.
    pub connect: Vec<String>,
    /// zenoh's own keys, merged over the defaults of this crate, as nested maps.
    pub config: Map<String, Value>,
    /// Fail to open when nothing of `connect` answers for this long; `None` opens at once and goes
    /// on trying in the background.
    #[serde(skip)]
    pub connect_timeout: Option<Duration>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            mode: Mode::Peer,
            listen: Vec::new(),
            connect: Vec::new(),
            config: Map::new(),
            connect_timeout: None,
        }
    }
}

impl SessionOptions {
    /// For programs: no node, connected to the first of `connect` that answers within 5 s.
    pub fn client(connect: Vec<String>) -> Self {
        SessionOptions {
            mode: Mode::Client,
            connect,
            connect_timeout: Some(Duration::from_secs(5)),
            ..Self::default()
        }
    }

    /// For the session between the nodes of a cluster: a mesh of the given endpoints alone, and
    /// 1 MiB to receive bulk, which the clients' session of a node with thousands of links must not have.
    pub fn cluster(listen: Vec<String>, connect: Vec<String>) -> Self {
        let config = json!({
            "scouting": {"gossip": {"enabled": false}},
            "transport": {"link": {"rx": {"buffer_size": 1 << 20}}},
        });
        let Value::Object(config) = config else { unreachable!("an object was written") };
        SessionOptions { listen, connect, config, ..Self::default() }
    }

    /// Refuses what zenoh would not take.
    ///
    /// # Errors
    /// [`Error::Configuration`] with the key and the reason.
    pub fn validate(&self) -> Result<()> {
        self.to_zenoh().map(drop)
    }

    /// The whole zenoh configuration.
    pub(crate) fn to_zenoh(&self) -> Result<zenoh::Config> {
        for (key, endpoints) in [("listen", &self.listen), ("connect", &self.connect)] {
            for endpoint in endpoints {
                endpoint.parse::<EndPoint>().map_err(|error| refused(key, &json!(endpoint), &error))?;
            }
        }
        if self.mode == Mode::Client && !self.listen.is_empty() {
            return Err(Error::Configuration("listen: a client listens on nothing".into()));
        }
        let mut config = zenoh::Config::default();
        for (key, value) in self.defaults() {
            config.insert_json5(key, &value.to_string()).map_err(|error| refused(key, &value, &error))?;
        }
        for (key, value) in &self.config {
            merge(&mut config, key, value)?;
        }
        Ok(config)
    }

    /// Where zenoh's own defaults do not fit a node.
    fn defaults(&self) -> Vec<(&'static str, Value)> {
        let connect: Vec<&String> =
            self.connect.iter().filter(|to| !self.listen.iter().any(|own| same_address(own, to))).collect();
        // Both peers dial each other within the founding second of their transport (`zenoh/links.rs`), also when one of
        // them was away for long.
        let retry = json!({
            "period_init_ms": 100, "period_max_ms": 400, "period_increase_factor": 2,
        });
        let timeout_ms =
            self.connect_timeout.map_or(-1, |limit| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
        vec![
            ("mode", json!(self.mode.name())),
            ("listen/endpoints", json!(self.listen)),
            ("listen/exit_on_failure", json!(true)),
            ("listen/timeout_ms", json!(0)),
            ("connect/endpoints", json!(connect)),
            ("connect/timeout_ms", json!(timeout_ms)),
            ("connect/exit_on_failure", json!(self.connect_timeout.is_some())),
            ("connect/retry", retry),
            // Nodes are configured; gossip completes the mesh, which peers need: they never relay.
            ("scouting/multicast/enabled", json!(false)),
            ("scouting/gossip/enabled", json!(self.mode != Mode::Client)),
            // Commit times are ours, not the hop's.
            ("timestamping/enabled", json!(false)),
            // How long a frozen node is believed alive; the frozen side announces it.
            ("transport/link/tx/lease", json!(2000)),
            ("transport/link/tx/keep_alive", json!(4)),
            (
                "transport/link/tx/queue/size",
                json!({
                    "control": 4, "real_time": 4, "interactive_high": 8, "interactive_low": 2,
                    "data_high": 2, "data": 8, "data_low": 2, "background": 4,
                }),
            ),
            ("transport/link/rx/max_message_size", json!(64 << 20)),
            ("transport/unicast/max_sessions", json!(10_000)),
            ("transport/unicast/accept_pending", json!(1_000)),
        ]
    }
}

/// Sets a value, map by map, so that what is not named keeps its default. Where zenoh takes a map as
/// one value (`{peer: …, router: …}`), it is set as a whole.
fn merge(config: &mut zenoh::Config, key: &str, value: &Value) -> Result<()> {
    let own = |child: &str| matches!((key, child), ("listen" | "connect", "endpoints"));
    if matches!(key, "mode" | "listen/endpoints" | "connect/endpoints")
        || value.as_object().is_some_and(|children| children.keys().any(|child| own(child)))
    {
        return Err(Error::Configuration(format!("config.{}: has an option of its own", dotted(key))));
    }
    let whole = |config: &mut zenoh::Config| {
        config.insert_json5(key, &value.to_string()).map_err(|error| refused(key, value, &error))
    };
    let Value::Object(children) = value else { return whole(config) };
    let mut merged = config.clone();
    for (child, value) in children {
        if let Err(error) = merge(&mut merged, &format!("{key}/{child}"), value) {
            // The part that zenoh refuses is the one to name, unless the map is itself a value.
            return whole(config).map_err(|_| error);
        }
    }
    *config = merged;
    Ok(())
}

fn refused(key: &str, value: &Value, reason: &dyn std::fmt::Display) -> Error {
    Error::Configuration(format!("{}: {value} is refused: {reason}", dotted(key)))
}

fn dotted(key: &str) -> String {
    key.replace('/', ".")
}

/// The same protocol and address, whatever the parameters behind them.
fn same_address(one: &str, other: &str) -> bool {
    let address = |endpoint: &str| endpoint.split(['?', '#']).next().map(str::to_owned);
    address(one) == address(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(config: Value) -> SessionOptions {
        let Value::Object(config) = config else { panic!("not a map") };
        SessionOptions { config, ..SessionOptions::default() }
    }

    fn value(options: &SessionOptions, key: &str) -> String {
        options.to_zenoh().unwrap().get_json(key).unwrap()
    }

    #[test]
    fn a_key_of_zenoh_is_merged_over_our_defaults() {
        let options = options(json!({"transport": {"link": {"tx": {"lease": 777}}}}));
        assert_eq!(value(&options, "transport/link/tx/lease"), "777");
        assert_eq!(value(&options, "transport/unicast/max_sessions"), "10000");
        assert_eq!(value(&options, "scouting/multicast/enabled"), "false");
    }

    #[test]
    fn a_map_that_is_one_value_is_set_as_a_whole() {
        let options = options(json!({"timestamping": {"enabled": {"router": true, "peer": true}}}));
        assert!(value(&options, "timestamping/enabled").contains("true"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_path() {
        let error = options(json!({"transport": {"link": {"tx": {"leese": 1}}}})).validate().unwrap_err();
        assert!(error.to_string().contains("transport.link.tx.leese"), "{error}");
        let error = options(json!({"transprot": 1})).validate().unwrap_err();
        assert!(error.to_string().contains("transprot"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_path() {
        let error =
            options(json!({"transport": {"link": {"tx": {"lease": "long"}}}})).validate().unwrap_err();
        assert!(error.to_string().contains("transport.link.tx.lease"), "{error}");
    }

    #[test]
    fn what_has_an_option_of_its_own_is_refused_in_config() {
        for config in [json!({"mode": "client"}), json!({"listen": {"endpoints": []}})] {
            assert!(matches!(options(config).validate(), Err(Error::Configuration(_))));
        }
    }

    #[test]
    fn the_own_address_is_left_out_of_the_connect_list() {
        let options = SessionOptions {
            listen: vec!["tcp/127.0.0.1:7447".into()],
            connect: vec!["tcp/127.0.0.1:7447#x=1".into(), "tcp/127.0.0.1:7448".into()],
            ..SessionOptions::default()
        };
        assert_eq!(value(&options, "connect/endpoints"), r#"["tcp/127.0.0.1:7448"]"#);
    }

    #[test]
    fn an_endpoint_that_is_none_is_refused() {
        let options = SessionOptions { connect: vec!["127.0.0.1".into()], ..SessionOptions::default() };
        let error = options.validate().unwrap_err();
        assert!(error.to_string().contains("connect"), "{error}");
    }
}
