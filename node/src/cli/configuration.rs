//! `odgm config`: what a node would run with.

use super::arguments::Layers;
use crate::config::{ConfigErrors, Loaded, NodeConfig};
use crate::output::{self, Failure};

/// The configuration of files, environment and flags.
pub(super) fn load(layers: &Layers) -> Result<Loaded, ConfigErrors> {
    let environment = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    NodeConfig::load(layers.config.as_deref(), environment, &layers.settings)
}

fn loaded(layers: &Layers) -> Result<NodeConfig, Failure> {
    let loaded = load(layers).map_err(|errors| Failure::Refused(errors.to_string()))?;
    for warning in &loaded.warnings {
        complain(warning);
    }
    Ok(loaded.config)
}

#[allow(clippy::print_stderr, reason = "a command speaks to people on stderr")]
fn complain(warning: &str) {
    eprintln!("odgm: {warning}");
}

/// Prints the effective configuration.
pub(super) fn show(layers: &Layers) -> Result<(), Failure> {
    Ok(output::raw(loaded(layers)?.to_yaml().as_bytes())?)
}

/// Says that the configuration is fine, or what is not.
pub(super) fn check(layers: &Layers) -> Result<(), Failure> {
    loaded(layers)?;
    Ok(output::line("ok")?)
}
