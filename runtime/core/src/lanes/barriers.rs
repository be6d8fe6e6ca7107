//! Barriers: partitions of which nothing beyond an offset is dispatched (the rounds of the strict batch retry).

/// Per partition index, the last offset that may be dispatched.
#[derive(Debug, Default)]
pub(super) struct Barriers {
    last: Vec<i64>,
    /// Partitions with a barrier: mostly none, and then nobody looks.
    shut: usize,
    /// Lanes that stand before a barrier.
    pub(super) held: Vec<u32>,
}

impl Barriers {
    /// Whether an event may not be dispatched now.
    pub(super) fn holds(&self, partition: u32, offset: i64) -> bool {
        self.shut > 0 && self.last.get(partition as usize).is_some_and(|&last| offset > last)
    }

    /// Sets or lifts a barrier. True: it is another than before.
    pub(super) fn set(&mut self, partition: u32, last: Option<i64>) -> bool {
        let at = partition as usize;
        if last.is_none() && self.last.len() <= at {
            return false;
        }
        if self.last.len() <= at {
            self.last.resize(at + 1, i64::MAX);
        }
        let Some(barrier) = self.last.get_mut(at) else { return false };
        let before = std::mem::replace(barrier, last.unwrap_or(i64::MAX));
        self.shut += usize::from(*barrier != i64::MAX);
        self.shut -= usize::from(before != i64::MAX);
        before != *barrier
    }
}
