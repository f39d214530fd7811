//! The layers of a configuration: defaults, YAML file, environment, `--set`; later wins.
//!
//! A variable or flag is text; whether it means a number, a list or a name is decided by the default
//! that it replaces, so that `ODGM_NODE__NAME=7` is a name and no number.

use std::path::Path;

use figment::providers::Serialized;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::error::Provenance;
use super::{ConfigError, ConfigErrors, NodeConfig};

/// A configuration that was read and checked.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What the node runs with.
    pub config: NodeConfig,
    /// What was ignored, for the log.
    pub warnings: Vec<String>,
}

/// A `--set` that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not of the form a.b=value")]
pub struct SetError {
    /// What was given.
    pub given: String,
}

/// One `a.b=value` of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    path: Vec<String>,
    value: String,
}

impl std::str::FromStr for Setting {
    type Err = SetError;

    fn from_str(given: &str) -> Result<Self, SetError> {
        let refused = || SetError { given: given.to_owned() };
        let (key, value) = given.split_once('=').ok_or_else(refused)?;
        let path: Vec<String> = key.trim().split('.').map(str::to_owned).collect();
        if path.iter().any(String::is_empty) {
            return Err(refused());
        }
        Ok(Setting { path, value: value.to_owned() })
    }
}

impl NodeConfig {
    /// Lays the layers over each other and checks the result.
    ///
    /// # Errors
    /// All that is wrong; when something can't be read at all, the first of it.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        settings: &[Setting],
    ) -> Result<Loaded, ConfigErrors> {
        let defaults = NodeConfig::default();
        let shape = Value::serialize(&defaults).expect("the defaults are plain values");
        let mut figment = Figment::from(Named::new("the defaults", Serialized::defaults(&defaults)));
        if let Some(path) = file {
            figment = figment.merge(Layer::file(path)?);
        }
        let mut warnings = Vec::new();
        let mut variables: Vec<_> =
            environment.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
        variables.sort();
        for (name, value) in variables {
            if !name.contains("__") {
                warnings.push(format!("environment variable {name} names no key and is ignored"));
                continue;
            }
            let path: Vec<String> =
                name[PREFIX.len()..].split("__").map(|level| level.to_ascii_lowercase()).collect();
            let source = format!("environment variable {name}");
            figment = figment.merge(Layer::single(source, &path, &value, &shape));
        }
        for Setting { path, value } in settings {
            let source = format!("--set {}={value}", path.join("."));
            figment = figment.merge(Layer::single(source, path, value, &shape));
        }

        let provenance = Provenance::new(&figment);
        let mut config: NodeConfig =
            figment.extract().map_err(|error| ConfigErrors::from(provenance.refused(&error)))?;
        let given = |key| figment.find_metadata(key).is_some_and(|metadata| metadata.name != "the defaults");
        if !given("cluster.bootstrap")
            && config.cluster.expected_nodes == 1
            && config.cluster.peers.is_empty()
        {
            config.cluster.bootstrap.clone_from(&config.node.name);
        }
        let wrong: Vec<ConfigError> =
            config.check().into_iter().map(|fault| provenance.error(&fault.path, fault.problem)).collect();
        if wrong.is_empty() { Ok(Loaded { config, warnings }) } else { Err(ConfigErrors(wrong)) }
    }
}

const PREFIX: &str = "ODGM_";

/// A tree with the name of where it came from.
struct Layer {
    source: String,
    tree: Dict,
}

impl Layer {
    fn file(path: &Path) -> Result<Self, ConfigErrors> {
        let source = path.display().to_string();
        let refuse = |problem: String| {
            ConfigErrors::from(ConfigError {
                key: String::new(),
                value: None,
                source: Some(source.clone()),
                problem,
            })
        };
        let text = std::fs::read_to_string(path).map_err(|error| refuse(format!("cannot read: {error}")))?;
        // First as YAML's own value: that refuses a key given twice.
        let yaml: serde_yaml::Value =
            serde_yaml::from_str(&text).map_err(|error| refuse(format!("is no YAML: {error}")))?;
        let value = Value::serialize(&yaml).map_err(|error| refuse(error.to_string()))?;
        let tree = match without_nulls(value, &mut Vec::new()) {
            Some(Value::Dict(_, tree)) => tree,
            None => Dict::new(),
            Some(_) => return Err(refuse("is no map of keys".to_owned())),
        };
        Ok(Layer { source, tree })
    }

    /// One value at a path.
    fn single(source: String, path: &[String], text: &str, shape: &Value) -> Self {
        let leaf = value_like(shape_at(shape, path), text);
        let tree =
            path.iter().rev().fold(leaf, |value, step| Value::from(Dict::from([(step.clone(), value)])));
        // A path has a first step: splitting text never yields nothing.
        let tree = match tree {
            Value::Dict(_, tree) => tree,
            _ => Dict::new(),
        };
        Layer { source, tree }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.tree.clone()))
    }
}

/// Another provider under a name for people.
struct Named<P> {
    name: &'static str,
    provider: P,
}

impl<P> Named<P> {
    fn new(name: &'static str, provider: P) -> Self {
        Named { name, provider }
    }
}

impl<P: Provider> Provider for Named<P> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        self.provider.data()
    }
}

fn shape_at<'a>(shape: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(shape, |value, step| match value {
        Value::Dict(_, dict) => dict.get(step),
        _ => None,
    })
}

/// Text as a value of the same kind as the default.
fn value_like(default: Option<&Value>, text: &str) -> Value {
    let yaml = || match serde_yaml::from_str::<serde_yaml::Value>(text) {
        Ok(yaml) => Value::serialize(&yaml).unwrap_or_else(|_| Value::from(text)),
        Err(_) => Value::from(text),
    };
    match default {
        Some(Value::String(..)) => Value::from(text),
        Some(Value::Array(..)) if !text.trim_start().starts_with('[') => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::from(items.map(Value::from).collect::<Vec<_>>())
        }
        _ => yaml(),
    }
}

/// A key without a value in a file is a key that is not given; zenoh's own keys keep theirs.
fn without_nulls(value: Value, path: &mut Vec<String>) -> Option<Value> {
    match value {
        Value::Empty(..) => None,
        Value::Dict(tag, dict) if *path != ["zenoh", "config"] => {
            let mut kept = Dict::new();
            for (key, value) in dict {
                path.push(key.clone());
                if let Some(value) = without_nulls(value, path) {
                    kept.insert(key, value);
                }
                path.pop();
            }
            Some(Value::Dict(tag, kept))
        }
        other => Some(other),
    }
}
