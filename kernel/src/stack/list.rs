//! Lists of slots by number, with append and removal in constant time.

/// No slot.
const NONE: u16 = u16::MAX;

/// The slots before and after a slot in its list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    before: u16,
    after: u16,
}

impl Links {
    pub(super) const ALONE: Self = Self {
        before: NONE,
        after: NONE,
    };
}

/// A list of slots, oldest first.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    first: u16,
    last: u16,
    length: usize,
}

impl List {
    pub(super) const EMPTY: Self = Self {
        first: NONE,
        last: NONE,
        length: 0,
    };

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// The oldest slot.
    pub(super) fn first(&self) -> Option<u16> {
        (self.first != NONE).then_some(self.first)
    }

    /// All slots, oldest first.
    pub(super) fn iter<T>(
        &self,
        slots: &[T],
        links: impl Fn(&T) -> Links,
    ) -> impl Iterator<Item = u16> {
        let mut next = self.first;
        // The length bounds the loop, whatever the links are.
        (0..self.length).map_while(move |_| {
            let here = next;
            next = links(slots.get(usize::from(here))?).after;
            Some(here)
        })
    }

    /// Appends a slot that is in no list.
    pub(super) fn push<T>(
        &mut self,
        slots: &mut [T],
        slot: u16,
        links: impl Fn(&mut T) -> &mut Links,
    ) {
        if let Some(this) = slots.get_mut(usize::from(slot)) {
            *links(this) = Links {
                before: self.last,
                after: NONE,
            };
        }
        match slots.get_mut(usize::from(self.last)) {
            Some(last) => links(last).after = slot,
            None => self.first = slot,
        }
        self.last = slot;
        self.length += 1;
    }

    /// Removes a slot that is in this list.
    pub(super) fn remove<T>(
        &mut self,
        slots: &mut [T],
        slot: u16,
        links: impl Fn(&mut T) -> &mut Links,
    ) {
        let Some(this) = slots.get_mut(usize::from(slot)) else {
            return;
        };
        let Links { before, after } = core::mem::replace(links(this), Links::ALONE);
        match slots.get_mut(usize::from(before)) {
            Some(before) => links(before).after = after,
            None => self.first = after,
        }
        match slots.get_mut(usize::from(after)) {
            Some(after) => links(after).before = before,
            None => self.last = before,
        }
        self.length = self.length.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(mayfly_seeds::cases(256))]

        #[test]
        fn like_a_vector(ops in prop::collection::vec((any::<bool>(), 0_u16..12), 0..200)) {
            let mut slots = [Links::ALONE; 12];
            let mut list = List::EMPTY;
            let mut model: Vec<u16> = Vec::new();
            for (push, slot) in ops {
                let at = model.iter().position(|&other| other == slot);
                match (push, at) {
                    (true, None) => {
                        list.push(&mut slots, slot, |links| links);
                        model.push(slot);
                    }
                    (false, Some(at)) => {
                        list.remove(&mut slots, slot, |links| links);
                        model.remove(at);
                    }
                    _ => {}
                }
                prop_assert!(list.iter(&slots, |links| *links).eq(model.iter().copied()));
                prop_assert_eq!(list.first(), model.first().copied());
                prop_assert_eq!(list.len(), model.len());
            }
        }
    }
}
