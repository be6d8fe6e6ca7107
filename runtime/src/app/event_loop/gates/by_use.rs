//! Indexes in the order in which they were used: a linked list, in which each is at most once.

/// The end of the list.
const NONE: usize = usize::MAX;

/// Indexes in the order in which they were pushed.
#[derive(Debug)]
pub(super) struct ByUse {
    links: Vec<Link>,
    first: usize,
    last: usize,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    before: usize,
    after: usize,
    is_in: bool,
}

impl Default for ByUse {
    fn default() -> Self {
        ByUse { links: Vec::new(), first: NONE, last: NONE }
    }
}

impl ByUse {
    /// Returns the index that was pushed first.
    pub(super) fn first(&self) -> Option<usize> {
        (self.first != NONE).then_some(self.first)
    }

    /// Adds an index that is not in the list.
    pub(super) fn push(&mut self, index: usize) {
        let unused = Link { before: NONE, after: NONE, is_in: false };
        self.links.resize(self.links.len().max(index + 1), unused);
        let before = std::mem::replace(&mut self.last, index);
        if let Some(link) = self.links.get_mut(index) {
            *link = Link { before, after: NONE, is_in: true };
        }
        match self.links.get_mut(before) {
            Some(before) => before.after = index,
            None => self.first = index,
        }
    }

    /// Removes an index, if it is in the list.
    pub(super) fn remove(&mut self, index: usize) {
        let Some(link) = self.links.get_mut(index).filter(|link| link.is_in) else { return };
        link.is_in = false;
        let Link { before, after, .. } = *link;
        match self.links.get_mut(before) {
            Some(before) => before.after = after,
            None => self.first = after,
        }
        match self.links.get_mut(after) {
            Some(after) => after.before = before,
            None => self.last = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(list: &mut ByUse) -> Vec<usize> {
        std::iter::from_fn(|| {
            let first = list.first()?;
            list.remove(first);
            Some(first)
        })
        .collect()
    }

    #[test]
    fn indexes_are_in_the_order_of_their_use() {
        let mut list = ByUse::default();
        [3, 0, 2, 1].into_iter().for_each(|index| list.push(index));
        [0, 0, 7].into_iter().for_each(|index| list.remove(index));
        list.push(0);
        list.remove(3);
        assert_eq!(list.first(), Some(2));
        list.remove(1);
        assert_eq!(drain(&mut list), [2, 0]);
        list.push(5);
        list.remove(5);
        assert_eq!(drain(&mut list), [0; 0]);
    }
}
