//! The parked events of a key by value, equal ones by arrival: a treap over the places, which is a search tree whose nodes
//! have pseudorandom ranks, none above that of its parent. So its depth is logarithmic, whatever the order of insertion is.

use super::{Node, Parked, ParkedOfKey};
use crate::slab::NONE;

/// Where the index of a node is stored.
#[derive(Clone, Copy)]
enum Link {
    Root,
    Lower(Node),
    Higher(Node),
}

impl Parked {
    pub(super) fn insert_by_value(&mut self, of_key: &mut ParkedOfKey, node: Node) {
        let sort = self.sort_key(node);
        let (mut link, mut at) = (Link::Root, of_key.root);
        while at != NONE && rank(at) >= rank(node) {
            link = if sort < self.sort_key(at) { Link::Lower(at) } else { Link::Higher(at) };
            at = self.follow(of_key, link);
        }
        self.set(of_key, link, node);
        // The subtree that was there is split into what is lower and what is higher.
        let (mut lower, mut higher) = (Link::Lower(node), Link::Higher(node));
        while at != NONE {
            let (side, next) = if self.sort_key(at) < sort {
                (std::mem::replace(&mut lower, Link::Higher(at)), Link::Higher(at))
            } else {
                (std::mem::replace(&mut higher, Link::Lower(at)), Link::Lower(at))
            };
            self.set(of_key, side, at);
            at = self.follow(of_key, next);
        }
        self.set(of_key, lower, NONE);
        self.set(of_key, higher, NONE);
    }

    pub(super) fn remove_by_value(&mut self, of_key: &mut ParkedOfKey, node: Node) {
        let sort = self.sort_key(node);
        let (mut link, mut at) = (Link::Root, of_key.root);
        while at != node {
            assert!(at != NONE, "the tree of a key has its parked events");
            link = if sort < self.sort_key(at) { Link::Lower(at) } else { Link::Higher(at) };
            at = self.follow(of_key, link);
        }
        // Its two subtrees take its place, merged by rank.
        let (mut lower, mut higher) = (self.place(node).lower, self.place(node).higher);
        while lower != NONE && higher != NONE {
            if rank(lower) >= rank(higher) {
                self.set(of_key, link, lower);
                link = Link::Higher(lower);
                lower = self.place(lower).higher;
            } else {
                self.set(of_key, link, higher);
                link = Link::Lower(higher);
                higher = self.place(higher).lower;
            }
        }
        self.set(of_key, link, if lower == NONE { higher } else { lower });
    }

    /// Returns the event with the lowest value, and that value.
    pub(crate) fn lowest(&self, of_key: &ParkedOfKey) -> Option<(i64, Node)> {
        self.first_from(of_key, (i64::MIN, i64::MIN))
    }

    /// Returns the event with the greatest value, the first of them by arrival, and that value.
    pub(crate) fn greatest(&self, of_key: &ParkedOfKey) -> Option<(i64, Node)> {
        let (mut at, mut greatest) = (of_key.root, None);
        while at != NONE {
            let place = self.place(at);
            (greatest, at) = (Some(place.value), place.higher);
        }
        self.first_from(of_key, (greatest?, i64::MIN))
    }

    /// Returns the events with this value or a higher one, by value.
    pub(crate) fn at_or_above(
        &self,
        of_key: &ParkedOfKey,
        value: i64,
    ) -> impl Iterator<Item = (i64, Node)> + use<'_> {
        let of_key = *of_key;
        let first = self.first_from(&of_key, (value, i64::MIN));
        std::iter::successors(first, move |&(_, node)| self.after(&of_key, node))
    }

    /// Returns the event after this one by value.
    pub(crate) fn after(&self, of_key: &ParkedOfKey, node: Node) -> Option<(i64, Node)> {
        let (value, offset) = self.sort_key(node);
        self.first_from(of_key, (value, offset + 1))
    }

    /// Returns the first event that is not before this place.
    fn first_from(&self, of_key: &ParkedOfKey, from: (i64, i64)) -> Option<(i64, Node)> {
        let (mut at, mut first) = (of_key.root, None);
        while at != NONE {
            let place = self.place(at);
            if (place.value, place.offset) < from {
                at = place.higher;
            } else {
                first = Some((place.value, at));
                at = place.lower;
            }
        }
        first
    }

    fn sort_key(&self, node: Node) -> (i64, i64) {
        let place = self.place(node);
        (place.value, place.offset)
    }

    fn follow(&self, of_key: &ParkedOfKey, link: Link) -> Node {
        match link {
            Link::Root => of_key.root,
            Link::Lower(node) => self.place(node).lower,
            Link::Higher(node) => self.place(node).higher,
        }
    }

    fn set(&mut self, of_key: &mut ParkedOfKey, link: Link, to: Node) {
        *match link {
            Link::Root => &mut of_key.root,
            Link::Lower(node) => &mut self.place_mut(node).lower,
            Link::Higher(node) => &mut self.place_mut(node).higher,
        } = to;
    }
}

/// Returns a number of a node that has nothing to do with its value.
fn rank(node: Node) -> u32 {
    // The finalizer of MurmurHash3.
    let mixed = (node ^ (node >> 16)).wrapping_mul(0x85eb_ca6b);
    let mixed = (mixed ^ (mixed >> 13)).wrapping_mul(0xc2b2_ae35);
    mixed ^ (mixed >> 16)
}
