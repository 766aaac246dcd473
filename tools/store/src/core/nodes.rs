//! Requests about nodes, inside and outside of transactions.

use std::collections::HashMap;
use std::rc::Rc;

use mayfly_xenstore::{ErrorCode, Perm, wire};

use super::connection::ConnectionId;
use super::domains::{Domains, Host, Ledger};
use super::path;
use super::perms::{Perms, READ, Who};
use super::server::{INTRODUCE, News, RELEASE, Server};
use super::transaction::{LIST, PERMS, PRESENCE, Transaction, VALUE};
use super::tree::{self, Node};
use super::view::{Edit, View, kept, look};

/// The origin of a request: its connection, domain and transaction.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) id: ConnectionId,
    pub(super) who: &'a Who,
    pub(super) home: &'a str,
    /// The number of the transaction, 0 outside of transactions.
    pub(super) transaction: u32,
}

impl Server {
    pub(super) fn resolve(&self, asker: Asker<'_>, text: &[u8]) -> Result<String, ErrorCode> {
        path::resolve(text, asker.home, self.quota.path)
    }

    /// Runs `act` on the asker's transaction, if its quota allows another node. Charges the domain for the bytes by
    /// which the transaction grows.
    fn within<T>(
        &mut self,
        asker: Asker<'_>,
        act: impl FnOnce(&mut Transaction, &mut Self) -> Result<T, ErrorCode>,
    ) -> Result<T, ErrorCode> {
        let connection = self
            .connections
            .get_mut(&asker.id)
            .ok_or(ErrorCode::ENOENT)?;
        let transaction = connection.transactions.remove(&asker.transaction);
        let mut transaction = transaction.ok_or(ErrorCode::ENOENT)?;
        let domid = asker.who.domid;
        let before = transaction.bytes;
        let result = if asker.who.is_privileged() || transaction.has_room(&self.quota) {
            act(&mut transaction, self)
        } else {
            Err(ErrorCode::ENOSPC)
        };
        if domid != 0 {
            let after = isize::try_from(transaction.bytes).unwrap_or(isize::MAX);
            let before = isize::try_from(before).unwrap_or(isize::MAX);
            self.domains.add_memory(domid, after - before);
        }
        if let Some(connection) = self.connections.get_mut(&asker.id) {
            connection
                .transactions
                .insert(asker.transaction, transaction);
        }
        result
    }

    /// Returns a node that the asker may read. A transaction notes that it has seen `what` of the node.
    pub(super) fn node(
        &mut self,
        asker: Asker<'_>,
        text: &[u8],
        what: u8,
    ) -> Result<Rc<Node>, ErrorCode> {
        let path = self.resolve(asker, text)?;
        let find = |root: &Rc<Node>, domains: &Domains| {
            look(root, &path, READ, asker.who, domains).map(Rc::clone)
        };
        if asker.transaction == 0 {
            return find(&self.root, &self.domains);
        }
        self.within(asker, |transaction, server| {
            transaction.note(&path, what | PERMS);
            find(&transaction.root, &server.domains)
        })
    }

    pub(super) fn read(&mut self, asker: Asker<'_>, payload: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let node = self.node(asker, path::one(payload)?, VALUE)?;
        Ok(node.value.to_vec())
    }

    pub(super) fn get_perms(
        &mut self,
        asker: Asker<'_>,
        payload: &[u8],
    ) -> Result<Vec<u8>, ErrorCode> {
        Ok(self.node(asker, path::one(payload)?, PERMS)?.perms.text())
    }

    pub(super) fn directory(
        &mut self,
        asker: Asker<'_>,
        payload: &[u8],
    ) -> Result<Vec<u8>, ErrorCode> {
        let node = self.node(asker, path::one(payload)?, LIST)?;
        match node.list_length() > wire::PAYLOAD_MAX {
            true => Err(ErrorCode::E2BIG),
            false => Ok(node.list()),
        }
    }

    /// Answers DIRECTORY_PART: the version of the list of children, then whole names from the offset on, and an empty
    /// name after the last one.
    pub(super) fn directory_part(
        &mut self,
        asker: Asker<'_>,
        payload: &[u8],
    ) -> Result<Vec<u8>, ErrorCode> {
        let [text, offset] = path::strings(payload)[..] else {
            return Err(ErrorCode::EINVAL);
        };
        let node = self.node(asker, text, LIST)?;
        let offset = usize::try_from(path::number(offset)).map_err(|_| ErrorCode::EINVAL)?;
        let list = node.list();
        // An offset beyond the end belongs to an earlier version of the list.
        let rest = list.get(offset..).ok_or(ErrorCode::EINVAL)?;
        let mut answer = format!("{}\0", node.listed).into_bytes();
        let room = wire::PAYLOAD_MAX - answer.len() - 1;
        let end = match rest.get(..room) {
            None => rest.len(),
            Some(part) => part
                .iter()
                .rposition(|byte| *byte == 0)
                .map_or(0, |at| at + 1),
        };
        answer.extend_from_slice(rest.get(..end).unwrap_or_default());
        if end == rest.len() {
            answer.push(0);
        }
        Ok(answer)
    }

    /// Carries out WRITE, MKDIR, RM or SET_PERMS.
    pub(super) fn edit(
        &mut self,
        asker: Asker<'_>,
        text: &[u8],
        edit: Edit,
    ) -> Result<Vec<u8>, ErrorCode> {
        let path = self.resolve(asker, text)?;
        if asker.transaction == 0 {
            self.change(asker.who, &path, &edit)?;
            return Ok(b"OK\0".to_vec());
        }
        self.now += 1;
        self.within(asker, |transaction, server| {
            let mut view = View {
                root: &mut transaction.root,
                who: asker.who,
                domains: &server.domains,
                quota: &server.quota,
                ledger: &mut transaction.ledger,
                now: server.now,
            };
            match view.edit(&path, &edit) {
                Ok(Some(_)) => transaction.push(&path, edit),
                // A change without effect is not repeated by the commit. It has only seen whether the node exists.
                Ok(None) => transaction.note(&path, PRESENCE),
                // A refusal shows the asker whether the node exists and what its permissions are.
                Err(code) => {
                    transaction.note(&path, PRESENCE | PERMS);
                    return Err(code);
                }
            }
            Ok(b"OK\0".to_vec())
        })
    }

    /// Makes a change outside of transactions, accounts for it and queues its news for the watchers.
    fn change(&mut self, who: &Who, path: &str, edit: &Edit) -> Result<(), ErrorCode> {
        let mut ledger = Ledger::default();
        self.now += 1;
        let mut view = View {
            root: &mut self.root,
            who,
            domains: &self.domains,
            quota: &self.quota,
            ledger: &mut ledger,
            now: self.now,
        };
        let change = view.edit(path, edit)?;
        ledger.settle(&mut self.domains);
        self.news.extend(change.map(News::Node));
        Ok(())
    }

    pub(super) fn write(&mut self, asker: Asker<'_>, payload: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let (text, value) = path::first(payload)?;
        self.edit(asker, text, Edit::Write(value.into()))
    }

    pub(super) fn set_perms(
        &mut self,
        asker: Asker<'_>,
        payload: &[u8],
        host: &mut dyn Host,
    ) -> Result<Vec<u8>, ErrorCode> {
        let (text, rest) = path::first(payload)?;
        let perms = Perms::parse(rest)?;
        if !asker.who.is_privileged() && perms.len() > self.quota.perms {
            return Err(ErrorCode::ENOSPC);
        }
        for (index, Perm { domid, .. }) in perms.iter().enumerate() {
            if self.domains.get(*domid).is_some() {
                continue;
            }
            if host.state(*domid).is_some() {
                self.domains.known(*domid, self.now);
            } else if index == 0 {
                return Err(ErrorCode::ENOENT);
            }
        }
        if text.first() == Some(&b'@') {
            return self.set_special_perms(asker, text, perms);
        }
        self.edit(asker, text, Edit::SetPerms(perms))
    }

    fn set_special_perms(
        &mut self,
        asker: Asker<'_>,
        text: &[u8],
        perms: Vec<Perm>,
    ) -> Result<Vec<u8>, ErrorCode> {
        if !asker.who.is_privileged() {
            return Err(ErrorCode::EACCES);
        }
        let mut known = [INTRODUCE, RELEASE].into_iter();
        let path = known.find(|path| path.as_bytes() == text);
        let path = path.ok_or(ErrorCode::EINVAL)?;
        self.special
            .insert(path, Rc::new(Perms::new(&perms, self.now)));
        Ok(b"OK\0".to_vec())
    }

    pub(super) fn start(&mut self, asker: Asker<'_>) -> Result<Vec<u8>, ErrorCode> {
        if asker.transaction != 0 {
            return Err(ErrorCode::EBUSY);
        }
        let most = self.quota.transactions;
        let transaction = Transaction::new(&self.root);
        let connection = self.connections.get_mut(&asker.id).ok_or(ErrorCode::EIO)?;
        if !asker.who.is_privileged() && connection.transactions.len() >= most {
            return Err(ErrorCode::ENOSPC);
        }
        let number = connection.transaction_number();
        connection.transactions.insert(number, transaction);
        Ok(format!("{number}\0").into_bytes())
    }

    pub(super) fn end(&mut self, asker: Asker<'_>, payload: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let commits = match path::one(payload)? {
            b"T" => true,
            b"F" => false,
            _ => return Err(ErrorCode::EINVAL),
        };
        let connection = self
            .connections
            .get_mut(&asker.id)
            .ok_or(ErrorCode::ENOENT)?;
        let transaction = connection.transactions.remove(&asker.transaction);
        let transaction = transaction.ok_or(ErrorCode::ENOENT)?;
        self.forget_bytes(asker.who, transaction.bytes);
        if commits {
            let edits = transaction.commit(&self.root)?;
            self.commit(asker, &edits)?;
        }
        Ok(b"OK\0".to_vec())
    }

    pub(super) fn forget_bytes(&mut self, who: &Who, bytes: usize) {
        if !who.is_privileged() {
            let bytes = isize::try_from(bytes).unwrap_or(isize::MAX);
            self.domains.add_memory(who.domid, -bytes);
        }
    }

    /// Makes all changes of a transaction in the present tree, or none of them.
    fn commit(&mut self, asker: Asker<'_>, edits: &[(String, Edit)]) -> Result<(), ErrorCode> {
        let before = Rc::clone(&self.root);
        let mut ledger = Ledger::default();
        let mut told = HashMap::new();
        self.now += 1;
        for (path, edit) in edits {
            let mut view = View {
                root: &mut self.root,
                who: asker.who,
                domains: &self.domains,
                quota: &self.quota,
                ledger: &mut ledger,
                now: self.now,
            };
            match view.edit(path, edit) {
                Ok(Some(change)) if change.removed.is_some() => {
                    self.news.push(News::Node(change));
                }
                Ok(Some(change)) => match told.get(path).and_then(|at| self.news.get_mut(*at)) {
                    // One event, for all who may read the node after any of the changes.
                    Some(News::Node(first)) => first.readable_by.extend(change.readable_by),
                    _ => {
                        told.insert(path, self.news.len());
                        self.news.push(News::Node(change));
                    }
                },
                Ok(None) => {}
                Err(code) => {
                    self.root = before;
                    self.news.clear();
                    let is_bound = matches!(code, ErrorCode::ENOSPC | ErrorCode::ENOMEM);
                    return Err(if is_bound { code } else { ErrorCode::EAGAIN });
                }
            }
        }
        ledger.settle(&mut self.domains);
        Ok(())
    }

    /// Forgets a domain, and removes the nodes that it owns.
    pub(super) fn remove_domain(&mut self, domid: u16) {
        let home = path::home(domid);
        for top in [home.as_str(), "/"] {
            // Most domains own no node any more, or only nodes in their home: a search of the whole tree is rare.
            if self.domains.usage(domid).nodes == 0 || self.keeps_orphans {
                break;
            }
            let mut found = Vec::new();
            if let Some(node) = tree::get(&self.root, top) {
                let start = if top == "/" { "" } else { top };
                owned(node, &mut start.to_owned(), domid, &mut found);
            }
            for path in found {
                // dom0 may remove every node that exists.
                let _ = self.change(&Who::domain(0), &path, &Edit::Remove);
            }
        }
        self.domains.forget(domid);
    }

    /// Counts the nodes of each domain again and returns whether the accounts agree.
    pub(super) fn is_accounted_right(&self) -> bool {
        let mut counted = HashMap::<u16, (usize, usize)>::new();
        tree::walk("", &self.root, &mut |name, node| {
            let sums = counted.entry(node.perms.owner()).or_default();
            sums.0 += 1;
            sums.1 += kept(name, node);
        });
        let mut numbers = self.domains.numbers().into_iter();
        numbers.all(|domid| {
            let (nodes, bytes) = counted.get(&domid).copied().unwrap_or_default();
            let usage = self.domains.usage(domid);
            domid == 0 || usage.nodes == nodes && usage.memory >= bytes
        })
    }
}

/// Collects the uppermost nodes that a domain owns in the subtree of `node`.
fn owned(node: &Node, path: &mut String, domid: u16, found: &mut Vec<String>) {
    if node.perms.owner() == domid && !path.is_empty() {
        found.push(path.clone());
        return;
    }
    let length = path.len();
    for (name, child) in node.children() {
        path.push('/');
        path.push_str(name);
        owned(child, path, domid, found);
        path.truncate(length);
    }
}
