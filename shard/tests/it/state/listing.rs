//! Selections and listings: zenoh's matching rules, in key order, from any key on.

use odgm_shard::state::{ObjectView, Selection};
use odgm_transport::KeyExpr;
use proptest::prelude::*;

use super::{Fixture, key, path, put};

fn listed(view: &ObjectView, pattern: &str, after: Option<&str>) -> Vec<String> {
    let selection = Selection::new([pattern.split('/').collect()]);
    let after = after.map(key);
    view.list(&selection, after.as_ref()).map(|row| path(&row.unwrap().0)).collect()
}

fn filled(paths: &[&str]) -> Fixture {
    let mut it = Fixture::new();
    for path in paths {
        it.run(put(path, path));
    }
    it
}

#[test]
fn a_list_is_in_key_order_with_an_objects_value_before_its_entries() {
    let it = filled(&["b", "a/z", "aa", "a", "a/b", "a!", "ü", "c/e"]);
    let expected = ["a", "a/b", "a/z", "a!", "aa", "b", "c/e", "ü"];
    assert_eq!(listed(&it.table.view(), "**", None), expected);
}

#[test]
fn wildcards_choose_objects_entries_or_both() {
    let it = filled(&["a", "a/e", "a/f", "ab", "ab/e", "b/e"]);
    let view = it.table.view();
    assert_eq!(listed(&view, "*", None), ["a", "ab"]);
    assert_eq!(listed(&view, "a/*", None), ["a/e", "a/f"]);
    assert_eq!(listed(&view, "a/**", None), ["a", "a/e", "a/f"]);
    assert_eq!(listed(&view, "*/e", None), ["a/e", "ab/e", "b/e"]);
    assert_eq!(listed(&view, "**/e", None), ["a/e", "ab/e", "b/e"]);
    assert_eq!(listed(&view, "a$*", None), ["a", "ab"]);
    assert_eq!(listed(&view, "a$*/**", None), ["a", "a/e", "a/f", "ab", "ab/e"]);
    assert_eq!(listed(&view, "$*b/$*", None), ["ab/e", "b/e"]);
    assert!(listed(&view, "*/*/*", None).is_empty());
    assert!(listed(&view, "none/**", None).is_empty());
}

#[test]
fn a_listed_key_carries_its_value_and_its_objects_numbers() {
    let it = filled(&["a", "a/e", "b", "a/e"]);
    let view = it.table.view();
    let all = Selection::all();
    for row in view.list(&all, Some(&key("a"))) {
        let (key, record) = row.unwrap();
        assert_eq!(Some(record), view.get(&key).unwrap());
    }
    assert_eq!(view.count(&all, None).unwrap(), 3);
    assert_eq!(view.count(&all, Some(&key("a/e"))).unwrap(), 1);
}

#[test]
fn a_page_goes_on_behind_any_key_whether_it_exists_or_not() {
    let it = filled(&["a", "a/e", "a/g", "b", "c/x"]);
    let view = it.table.view();
    assert_eq!(listed(&view, "**", Some("a")), ["a/e", "a/g", "b", "c/x"]);
    assert_eq!(listed(&view, "**", Some("a/f")), ["a/g", "b", "c/x"]);
    assert_eq!(listed(&view, "*", Some("a/f")), ["b"]);
    assert_eq!(listed(&view, "a/*", Some("b")), [""; 0]);
    assert_eq!(listed(&view, "b", Some("a")), ["b"]);
    assert_eq!(listed(&view, "**", Some("c/x")), [""; 0]);
}

#[test]
fn objects_with_many_entries_are_jumped_over_and_nothing_is_missed() {
    let names: Vec<String> = (0..200).map(|n| format!("big/e{n:03}")).collect();
    let mut paths: Vec<&str> = names.iter().map(String::as_str).collect();
    paths.extend(["big", "a", "c/e150", "z"]);
    let it = filled(&paths);
    let view = it.table.view();
    assert_eq!(listed(&view, "*", None), ["a", "big", "z"]);
    assert_eq!(listed(&view, "*/e150", None), ["big/e150", "c/e150"]);
    assert_eq!(listed(&view, "*/e19$*", None).len(), 10);
    assert_eq!(listed(&view, "*/$*99", None), ["big/e099", "big/e199"]);
    assert_eq!(listed(&view, "**", Some("big/e198")), ["big/e199", "c/e150", "z"]);
    assert_eq!(listed(&view, "*/*", Some("big")).len(), 201);
}

fn chunk_pattern() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("**".to_owned()),
        Just("*".to_owned()),
        "[abü]{1,3}",
        "[ab]{0,2}[$][*][abü]{1,2}",
        "[ab]{1,2}[$][*]",
        "[$][*][ab]{1,2}[$][*]",
        Just("@a".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_selection_holds_what_zenoh_intersects(
        pattern in prop::collection::vec(chunk_pattern(), 1..4),
        object in "[abü]{1,4}",
        entry in prop::option::of("[abü]{1,4}"),
    ) {
        let Ok(expr) = KeyExpr::autocanonize(pattern.join("/")) else { return Ok(()) };
        let target = match entry { Some(entry) => format!("{object}/{entry}"), None => object };
        let expected = expr.intersects(&KeyExpr::try_from(target.clone()).unwrap());
        let selection = Selection::new([expr.as_str().split('/').collect()]);
        prop_assert_eq!(selection.contains(&key(&target)), expected, "{} on {}", expr, target);
    }

    #[test]
    fn a_list_is_the_filter_of_all_keys(
        keys in prop::collection::btree_set("[abü]{1,2}(/[abü]{1,3})?", 0..60),
        many in any::<bool>(),
        pattern in prop::collection::vec(chunk_pattern(), 1..4),
        after in prop::option::of("[abü]{1,2}(/[abü]{1,3})?"),
    ) {
        let Ok(expr) = KeyExpr::autocanonize(pattern.join("/")) else { return Ok(()) };
        let mut paths: Vec<String> = keys.into_iter().collect();
        if many {
            paths.extend((0..40).map(|n| format!("ab/b{n}")));
        }
        let it = filled(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        let after = after.map(|after| key(&after));
        let mut expected: Vec<_> = paths.iter().map(|path| key(path)).collect();
        expected.sort();
        expected.dedup();
        let selection = Selection::new([expr.as_str().split('/').collect()]);
        expected.retain(|key| selection.contains(key) && after.as_ref().is_none_or(|after| key > after));
        let view = it.table.view();
        let found: Vec<_> = view.list(&selection, after.as_ref()).map(|row| row.unwrap().0).collect();
        prop_assert_eq!(found, expected);
    }
}
