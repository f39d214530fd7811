//! The table of what each kind refuses, with the reason.

use odgm_shard::Error;
use odgm_shard::cluster::Replication;
use odgm_shard::protocol::{Code, Refusal};
use odgm_shard::state::{Check, CheckKind, Command, Condition, Operation, Step};

use super::grid::{Grid, KINDS};
use super::{delete, key, put};

fn put_if(condition: Condition) -> Operation {
    Operation::Put { key: key("o"), value: Default::default(), ttl_ms: None, condition }
}

fn txn(checks: Vec<Check>, then: Vec<Step>, otherwise: Vec<Step>) -> Operation {
    Operation::Txn { checks, then, otherwise }
}

#[tokio::test(flavor = "multi_thread")]
async fn divergent_kinds_refuse_what_needs_one_order_and_the_others_refuse_nothing() {
    let check = |kind| Check { key: key("o"), kind };
    let increment = || Step::Increment { key: key("n"), by: 1 };
    let ordered: [(&str, Operation, &str); 9] = [
        ("if_revision", put_if(Condition::Revision(0)), "condition"),
        ("if_absent", put_if(Condition::Absent), "condition"),
        ("if_present", put_if(Condition::Present), "condition"),
        ("delete if_revision", Operation::Delete { key: key("o"), if_revision: Some(1) }, "condition"),
        ("increment", Operation::Increment { key: key("n"), by: 1 }, "increment"),
        ("txn if value", txn(vec![check(CheckKind::Value("x".into()))], Vec::new(), Vec::new()), "with if"),
        ("txn if absent", txn(vec![check(CheckKind::Absent)], Vec::new(), Vec::new()), "with if"),
        ("txn increment", txn(Vec::new(), vec![increment()], Vec::new()), "increment"),
        ("txn else increment", txn(Vec::new(), Vec::new(), vec![increment()]), "increment"),
    ];
    let free = [
        put("o", "1").operation,
        delete("o").operation,
        txn(Vec::new(), vec![Step::Delete { key: key("o") }], Vec::new()),
    ];
    for kind in KINDS {
        let grid = Grid::start(kind, 1).await;
        let state = grid.state(1);
        let diverges = matches!(kind, Replication::Mst | Replication::Eventual);
        assert_eq!(state.offers().linearizable, !diverges, "{kind:?}");
        for (what, operation, reason) in &ordered {
            let revision = state.view().revision();
            let outcome = state.write(Command { rid: None, operation: operation.clone() }).await;
            if diverges {
                let error = outcome.expect_err(what);
                assert!(matches!(error, Error::Unsupported(_)), "{kind:?} {what}: {error:?}");
                let refusal = Refusal::from(error);
                assert_eq!(refusal.code, Code::Unsupported, "{kind:?} {what}");
                assert!(refusal.message.contains(reason), "{kind:?} {what}: {}", refusal.message);
                assert_eq!(state.view().revision(), revision, "{kind:?} {what}");
            } else {
                outcome.unwrap_or_else(|error| panic!("{kind:?} {what}: {error}"));
            }
        }
        for operation in &free {
            state.write(Command { rid: None, operation: operation.clone() }).await.unwrap();
        }
    }
}
