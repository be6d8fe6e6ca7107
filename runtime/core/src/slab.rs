//! Dense storage that reuses its slots, so that the steady state allocates nothing.

use std::ops::{Index, IndexMut};

/// The index of no item, such as the end of a list.
pub(crate) const NONE: u32 = u32::MAX;

/// Values at dense indexes. A removed value stays in its slot, with the memory that it owns, for the next user.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    items: Vec<T>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Slab { items: Vec::new(), free: Vec::new() }
    }

    /// Returns a free slot, which still has its old value. `make` is called only for a slot never used before.
    pub(crate) fn acquire(&mut self, make: impl FnOnce() -> T) -> u32 {
        match self.free.pop() {
            Some(index) => index,
            None => self.grow(make()),
        }
    }

    #[cold]
    fn grow(&mut self, value: T) -> u32 {
        let index = u32::try_from(self.items.len()).expect("limits keep a slab far below 2^32 items");
        assert!(index != NONE, "a slab holds fewer than 2^32 - 1 items");
        self.items.push(value);
        // Freeing must never allocate: the free list has capacity for every item from the start.
        self.free.reserve(self.items.len() - self.free.len());
        index
    }

    /// Frees a slot. The caller makes sure that nothing refers to it any more.
    pub(crate) fn free(&mut self, index: u32) {
        debug_assert!(self.free.len() > 64 || !self.free.contains(&index), "{index} is free already");
        self.free.push(index);
    }

    /// Returns the number of slots in use.
    pub(crate) fn in_use(&self) -> usize {
        self.items.len() - self.free.len()
    }

    /// Returns the value of a slot, used or not; `None`: no such slot.
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.items.get(index as usize)
    }

    /// Returns the value of a slot, as [`Slab::get`] does.
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.items.get_mut(index as usize)
    }

    /// Returns the index after the last slot.
    pub(crate) fn end(&self) -> u32 {
        u32::try_from(self.items.len()).expect("a slab holds fewer than 2^32 items")
    }

    /// Returns the index of every slot, used or not.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = u32> + use<T> {
        0..u32::try_from(self.items.len()).expect("limits keep a slab far below 2^32 items")
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab::new()
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        self.items.get(index as usize).expect("an index comes from `acquire` of the same slab")
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        self.items.get_mut(index as usize).expect("an index comes from `acquire` of the same slab")
    }
}
