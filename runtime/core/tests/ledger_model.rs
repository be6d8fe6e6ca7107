//! The ledger, compared with a simple model: a map from every offset to its state.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed unwrap fails the test")]

use std::collections::BTreeMap;

use keylane_core::ledger::Ledger;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowState {
    Open,
    /// Settled, missing, or claimed by an earlier owner.
    Done,
}

/// The state of every offset from the start.
#[derive(Debug)]
struct Model {
    start: i64,
    next: i64,
    known: BTreeMap<i64, RowState>,
}

impl Model {
    fn new(start: i64, claims: &[(i64, i64)]) -> Self {
        let claimed = claims.iter().flat_map(|&(from, to)| from..to).map(|at| (at, RowState::Done));
        Model { start, next: start, known: claimed.collect() }
    }

    /// Returns true if the offset must be handled.
    fn enter(&mut self, offset: i64) -> bool {
        self.pass(offset);
        self.next = offset + 1;
        let fresh = self.known.get(&offset) != Some(&RowState::Done);
        if fresh {
            self.known.insert(offset, RowState::Open);
        }
        fresh
    }

    fn pass(&mut self, offset: i64) {
        for missing in self.next..offset {
            self.known.insert(missing, RowState::Done);
        }
        self.next = self.next.max(offset);
    }

    fn done(&self, offset: i64) -> bool {
        self.known.get(&offset) == Some(&RowState::Done)
    }

    fn committable(&self) -> i64 {
        (self.start..).find(|&offset| !self.done(offset)).unwrap()
    }

    fn runs(&self) -> Vec<(u64, u64)> {
        let mut runs = Vec::new();
        let mut at = self.committable();
        let last =
            self.known.iter().rev().find(|&(_, known)| *known == RowState::Done).map(|(&offset, _)| offset);
        while last.is_some_and(|last| at <= last) {
            let done_from = (at..).find(|&offset| self.done(offset)).unwrap();
            let open_from = (done_from..).find(|&offset| !self.done(offset)).unwrap();
            runs.push((done_from.abs_diff(at), open_from.abs_diff(done_from)));
            at = open_from;
        }
        runs
    }

    fn open(&self) -> Vec<i64> {
        let open = self.known.iter().filter(|&(_, known)| *known == RowState::Open);
        open.map(|(&offset, _)| offset).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Enter the offset this far past the next one.
    Enter(i64),
    Pass(i64),
    /// Settle one of the open offsets.
    Settle(prop::sample::Index),
    /// Settle the lowest open offset.
    SettleFirst,
}

fn step() -> impl Strategy<Value = Step> {
    // Occasionally, a gap of more than one chunk of the ledger.
    let gap = prop_oneof![20 => Just(0i64), 4 => 1i64..6, 1 => 60i64..200];
    prop_oneof![
        6 => gap.prop_map(Step::Enter),
        1 => (0i64..5).prop_map(Step::Pass),
        4 => any::<prop::sample::Index>().prop_map(Step::Settle),
        1 => Just(Step::SettleFirst),
    ]
}

fn claims() -> impl Strategy<Value = Vec<(i64, i64)>> {
    prop::collection::vec((0i64..9, 1i64..9), 0..6).prop_map(|pairs| {
        let mut at = 0;
        let ranges = pairs.into_iter().map(|(open, done)| {
            let from = at + open + i64::from(at > 0);
            at = from + done;
            (from, at)
        });
        ranges.collect()
    })
}

fn check(ledger: &Ledger, model: &Model) -> Result<(), TestCaseError> {
    let open = model.open();
    prop_assert_eq!(ledger.committable(), model.committable());
    prop_assert_eq!(ledger.next(), model.next);
    prop_assert_eq!(ledger.open(), open.len() as u64);
    let runs: Vec<_> = ledger.runs().collect();
    prop_assert_eq!(&runs, &model.runs());
    let beyond: u64 = runs.iter().map(|&(_, done)| done).sum();
    prop_assert_eq!(ledger.completed_beyond(), beyond);
    prop_assert_eq!(ledger.window(), u64::try_from(model.next - model.committable()).unwrap_or(0));
    Ok(())
}

fn play(start: i64, claimed: &[(i64, i64)], steps: &[Step]) -> Result<(), TestCaseError> {
    let claimed: Vec<_> = claimed.iter().map(|&(from, to)| (start + from, start + to)).collect();
    let mut ledger = Ledger::default();
    ledger.begin(start, &claimed);
    let mut model = Model::new(start, &claimed);
    check(&ledger, &model)?;
    for step in steps {
        match step {
            Step::Enter(gap) => {
                let offset = model.next + gap;
                prop_assert_eq!(ledger.enter(offset), model.enter(offset));
            }
            Step::Pass(by) => {
                let offset = model.next + by;
                ledger.pass(offset);
                model.pass(offset);
            }
            Step::Settle(_) | Step::SettleFirst => {
                let open = model.open();
                let chosen = match step {
                    Step::Settle(at) if !open.is_empty() => Some(open[at.index(open.len())]),
                    Step::Settle(_) | Step::SettleFirst | Step::Enter(_) | Step::Pass(_) => {
                        open.first().copied()
                    }
                };
                if let Some(offset) = chosen {
                    ledger.settle(offset);
                    model.known.insert(offset, RowState::Done);
                }
            }
        }
        check(&ledger, &model)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_agrees_with_the_model(
        // Also near the boundary of a chunk, and of a word.
        start in prop_oneof![Just(0i64), 32_700i64..32_770, 0i64..130],
        claimed in claims(),
        steps in prop::collection::vec(step(), 0..150),
    ) {
        play(start, &claimed, &steps)?;
    }

    #[test]
    fn a_reused_ledger_begins_empty(
        first in prop::collection::vec(step(), 0..80),
        claimed in claims(),
    ) {
        let mut ledger = Ledger::default();
        ledger.begin(0, &[]);
        let mut next = 0;
        for step in &first {
            if let Step::Enter(gap) = step {
                next += gap;
                ledger.enter(next);
                next += 1;
            }
        }
        ledger.begin(5, &claimed.iter().map(|&(from, to)| (5 + from, 5 + to)).collect::<Vec<_>>());
        let claimed: Vec<_> = claimed.iter().map(|&(from, to)| (5 + from, 5 + to)).collect();
        check(&ledger, &Model::new(5, &claimed))?;
    }
}

#[test]
fn chunks_far_apart_keep_their_order() {
    let mut ledger = Ledger::default();
    ledger.begin(0, &[]);
    let offsets: Vec<i64> = (0..40).map(|at| at * 50_000 + at).collect();
    for &offset in &offsets {
        assert!(ledger.enter(offset));
    }
    for &offset in offsets.iter().skip(1).step_by(2) {
        ledger.settle(offset);
    }
    assert_eq!(ledger.open(), 20);
    assert_eq!(ledger.committable(), 0);
    ledger.settle(0);
    assert_eq!(ledger.committable(), offsets[2]);
    let (open, done) = ledger.runs().next().unwrap();
    assert_eq!((open, done), (1, offsets[4].abs_diff(offsets[2]) - 1));
}
