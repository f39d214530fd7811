//! Presence.

use std::sync::Arc;

use super::{Mesh, Seen, key, ok};
use crate::session::{Declaration, LivenessHandler};

type Changes = Seen<(String, bool)>;

fn record(seen: &Changes) -> LivenessHandler {
    let seen = seen.clone();
    Arc::new(move |key, alive| seen.push((key.to_string(), alive)))
}

fn watch(mesh: &Mesh, session: usize) -> (Changes, Box<dyn Declaration>) {
    let seen = Seen::new();
    let declaration = ok(mesh.sessions[session].watch(&key("live/*"), record(&seen)));
    (seen, declaration)
}

async fn sees(mesh: &Mesh, seen: &Changes, changes: &[(&str, bool)]) {
    let expected: Vec<_> = changes.iter().map(|(key, alive)| ((*key).to_owned(), *alive)).collect();
    mesh.until(&format!("{expected:?}"), || seen.len() >= expected.len()).await;
    assert_eq!(seen.all(), expected);
}

/// Whoever comes later is told what is there.
pub async fn presence_is_seen_by_who_came_before_and_after(mesh: Mesh) {
    let (before, _before) = watch(&mesh, 1);
    let _token = ok(mesh.sessions[0].announce(&key("live/a")));
    sees(&mesh, &before, &[("live/a", true)]).await;
    let (after, _after) = watch(&mesh, 2);
    sees(&mesh, &after, &[("live/a", true)]).await;
}

/// Undeclared is gone.
pub async fn presence_ends_with_its_declaration(mesh: Mesh) {
    let (seen, _watch) = watch(&mesh, 1);
    let token = ok(mesh.sessions[0].announce(&key("live/a")));
    sees(&mesh, &seen, &[("live/a", true)]).await;
    drop(token);
    sees(&mesh, &seen, &[("live/a", true), ("live/a", false)]).await;
}

/// So is what belongs to a session that has closed.
pub async fn presence_ends_with_its_session(mesh: Mesh) {
    let (seen, _watch) = watch(&mesh, 1);
    let _token = ok(mesh.sessions[0].announce(&key("live/a")));
    sees(&mesh, &seen, &[("live/a", true)]).await;
    ok(mesh.sessions[0].close());
    sees(&mesh, &seen, &[("live/a", true), ("live/a", false)]).await;
}
