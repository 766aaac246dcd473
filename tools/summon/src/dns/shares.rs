//! Counts how much of a resource the clients of each network have, so that no network gets all of it.

use std::collections::BTreeMap;

use super::super::fleet::Prefix;

/// The counts, by network.
#[derive(Debug, Default)]
pub(super) struct Shares {
    of: BTreeMap<Prefix, usize>,
    all: usize,
}

impl Shares {
    /// Counts one more for a network. Returns `false` if the network or all together would have too many.
    pub(super) fn take(&mut self, prefix: Prefix, of_prefix: usize, all: usize) -> bool {
        let has_room = self.all < all && self.of(prefix) < of_prefix;
        if has_room {
            self.add(prefix);
        }
        has_room
    }

    /// Counts one more without a limit.
    pub(super) fn add(&mut self, prefix: Prefix) {
        *self.of.entry(prefix).or_default() += 1;
        self.all += 1;
    }

    /// Counts one less.
    pub(super) fn give_back(&mut self, prefix: Prefix) {
        if let Some(own) = self.of.get_mut(&prefix) {
            *own -= 1;
            self.all -= 1;
            if *own == 0 {
                self.of.remove(&prefix);
            }
        }
    }

    /// The count of a network.
    pub(super) fn of(&self, prefix: Prefix) -> usize {
        self.of.get(&prefix).copied().unwrap_or(0)
    }

    /// The greatest count of a network.
    pub(super) fn most(&self) -> usize {
        self.of.values().copied().max().unwrap_or(0)
    }

    /// The sum of all counts.
    pub(super) fn all(&self) -> usize {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn no_network_has_all_and_nothing_is_counted_that_is_gone() {
        let network = |n| Prefix::from(IpAddr::from([192, 0, n, 1]));
        let mut shares = Shares::default();
        assert!(shares.take(network(1), 2, 3));
        assert!(shares.take(network(1), 2, 3));
        assert!(!shares.take(network(1), 2, 3), "its own share");
        assert!(shares.take(network(2), 2, 3));
        assert!(!shares.take(network(3), 2, 3), "all together");
        assert_eq!((shares.most(), shares.all()), (2, 3));
        for n in [1, 1, 2, 2, 3] {
            shares.give_back(network(n));
        }
        assert_eq!((shares.most(), shares.all(), shares.of.len()), (0, 0, 0));
    }
}
