//! Requests that are not about nodes alone, and the dispatch of all requests.

use std::rc::Rc;

use mayfly_xenstore::ErrorCode;
use mayfly_xenstore::wire::{Asked, MessageKind, PAYLOAD_MAX};

use super::connection::{ClientMessage, ConnectionId};
use super::domains::Host;
use super::nodes::Asker;
use super::path::{domid, first, home, number, one, strings};
use super::perms::Who;
use super::server::{INTRODUCE, News, Server};
use super::view::Edit;
use super::watches::Watch;

/// `DOMID_SELF`.
const SELF: i64 = 0x7ff0;
/// The longest path of a watch on `@...`.
const SPECIAL_MAX: usize = 2048;

fn ok() -> Vec<u8> {
    b"OK\0".to_vec()
}

/// Reads the payload of WATCH and UNWATCH.
fn path_and_token(payload: &[u8]) -> Result<(&[u8], &[u8]), ErrorCode> {
    let (path, rest) = first(payload)?;
    let (token, _) = first(rest)?;
    Ok((path, token))
}

impl Server {
    /// Answers a request and sends the events of its changes.
    pub(super) fn request(&mut self, id: ConnectionId, asked: &Asked<'_>, host: &mut dyn Host) {
        if self.starts_update(id, asked) {
            return;
        }
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let (who, home) = (connection.who.clone(), connection.home.clone());
        let asker = Asker {
            id,
            who: &who,
            home: &home,
            transaction: asked.transaction,
        };
        let answer = self.answer(asker, asked, host);
        // The events of a change precede the answer, as with the C xenstored. The event of a new watch follows it.
        let first = self.news.pop_if(|news| matches!(news, News::First { .. }));
        self.tell(&who);
        let mut bytes = Vec::with_capacity(64);
        match answer {
            Ok(payload) if payload.len() <= PAYLOAD_MAX => asked.answer(&mut bytes, &payload),
            Ok(_) => asked.refusal(&mut bytes, "E2BIG"),
            Err(code) => asked.refusal(&mut bytes, &code.to_string()),
        }
        self.send(id, bytes, &who, ClientMessage::None);
        self.news.extend(first);
        self.tell(&who);
    }

    fn answer(
        &mut self,
        asker: Asker<'_>,
        asked: &Asked<'_>,
        host: &mut dyn Host,
    ) -> Result<Vec<u8>, ErrorCode> {
        let kind = MessageKind::of(asked.kind).ok_or(ErrorCode::ENOSYS)?;
        let is_for_dom0 = matches!(
            kind,
            MessageKind::Control
                | MessageKind::Introduce
                | MessageKind::Release
                | MessageKind::IsDomainIntroduced
                | MessageKind::Resume
                | MessageKind::SetTarget
        );
        if is_for_dom0 && !asker.who.is_privileged() {
            return Err(ErrorCode::EACCES);
        }
        if !matches!(kind, MessageKind::Watch | MessageKind::Unwatch) && asker.transaction != 0 {
            let connection = self.connections.get(&asker.id).ok_or(ErrorCode::EIO)?;
            if !connection.transactions.contains_key(&asker.transaction) {
                return Err(ErrorCode::ENOENT);
            }
        }
        let payload = asked.payload;
        match kind {
            MessageKind::Control => self.control(asker.id, payload),
            MessageKind::Directory => self.directory(asker, payload),
            MessageKind::DirectoryPart => self.directory_part(asker, payload),
            MessageKind::Read => self.read(asker, payload),
            MessageKind::GetPerms => self.get_perms(asker, payload),
            MessageKind::Write => self.write(asker, payload),
            MessageKind::Mkdir => self.edit(asker, one(payload)?, Edit::Mkdir),
            MessageKind::Rm => self.edit(asker, one(payload)?, Edit::Remove),
            MessageKind::SetPerms => self.set_perms(asker, payload, host),
            MessageKind::TransactionStart => self.start(asker),
            MessageKind::TransactionEnd => self.end(asker, payload),
            MessageKind::Watch => self.watch(asker, payload),
            MessageKind::Unwatch => self.unwatch(asker, payload),
            MessageKind::ResetWatches => {
                self.reset_watches(asker.id);
                Ok(ok())
            }
            MessageKind::Introduce => self.introduce(payload, host),
            MessageKind::Release => {
                let domid = self.introduced(payload)?;
                self.release(domid, host);
                Ok(ok())
            }
            MessageKind::Resume => {
                let domid = self.introduced(payload)?;
                if let Some(domain) = self.domains.get_mut(domid) {
                    domain.is_shutdown = false;
                }
                Ok(ok())
            }
            MessageKind::IsDomainIntroduced => {
                let number = number(one(payload)?);
                let domid = u16::try_from(number).ok();
                let is = domid.is_some_and(|domid| self.domains.is_introduced(domid));
                let letter: &[u8] = if is || number == SELF { b"T\0" } else { b"F\0" };
                Ok(letter.to_vec())
            }
            MessageKind::GetDomainPath => {
                let domid = domid(one(payload)?).ok_or(ErrorCode::EINVAL)?;
                Ok((home(domid) + "\0").into_bytes())
            }
            MessageKind::SetTarget => self.set_target(payload),
        }
    }

    fn watch(&mut self, asker: Asker<'_>, payload: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let (text, token) = path_and_token(payload)?;
        let is_special = text.first() == Some(&b'@');
        let path = match std::str::from_utf8(text) {
            Ok(text) if is_special && text.len() <= SPECIAL_MAX => text.to_owned(),
            _ => self.resolve(asker, text)?,
        };
        let is_relative = !is_special && text.first() != Some(&b'/');
        let usage = self.domains.usage(asker.who.domid);
        let connection = self.connections.get(&asker.id).ok_or(ErrorCode::EIO)?;
        let key = (path, token.into());
        if connection.watches.contains_key(&key) {
            return Err(ErrorCode::EEXIST);
        }
        let bytes = key.0.len() + key.1.len();
        if !asker.who.is_privileged() {
            if usage.watches >= self.quota.watches {
                return Err(ErrorCode::E2BIG);
            }
            if !self.domains.has_memory(asker.who.domid, bytes, &self.quota) {
                return Err(ErrorCode::ENOMEM);
            }
        }
        let skipped = if is_relative { asker.home.len() + 1 } else { 0 };
        let told = key.0.get(skipped..).unwrap_or_default().to_owned();
        self.news.push(News::First {
            to: asker.id,
            path: told,
            token: key.1.clone(),
        });
        self.add_watch(asker, key, skipped);
        Ok(ok())
    }

    /// Sets a watch that its connection has not set yet.
    pub(super) fn add_watch(&mut self, asker: Asker<'_>, key: (String, Rc<[u8]>), skipped: usize) {
        let bytes = key.0.len() + key.1.len();
        self.next_watch += 1;
        let watch = Watch {
            number: self.next_watch,
            connection: asker.id,
            token: key.1.clone(),
            skipped,
        };
        self.watches.add(&key.0, watch);
        if let Some(connection) = self.connections.get_mut(&asker.id) {
            connection.watches.insert(key, self.next_watch);
        }
        self.add_watches(asker.who, 1, bytes);
    }

    fn unwatch(&mut self, asker: Asker<'_>, payload: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let (text, token) = path_and_token(payload)?;
        let path = match std::str::from_utf8(text) {
            Ok(text) if text.starts_with('@') => text.to_owned(),
            // An invalid path was never watched.
            _ => self.resolve(asker, text).map_err(|_| ErrorCode::ENOENT)?,
        };
        let connection = self.connections.get_mut(&asker.id).ok_or(ErrorCode::EIO)?;
        let key = (path, token.into());
        let number = connection.watches.remove(&key).ok_or(ErrorCode::ENOENT)?;
        self.watches.remove(&key.0, number);
        self.add_watches(asker.who, -1, key.0.len() + key.1.len());
        Ok(ok())
    }

    fn add_watches(&mut self, who: &Who, count: isize, bytes: usize) {
        if who.is_privileged() {
            return;
        }
        let bytes = isize::try_from(bytes).unwrap_or(isize::MAX);
        self.domains.add_memory(who.domid, bytes * count);
        if let Some(domain) = self.domains.get_mut(who.domid) {
            let watches = &mut domain.usage.watches;
            *watches = watches.saturating_add_signed(count);
        }
    }

    /// Ends all watches and transactions of a connection.
    pub(super) fn reset_watches(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let who = connection.who.clone();
        let transactions = std::mem::take(&mut connection.transactions);
        for ((path, token), number) in std::mem::take(&mut connection.watches) {
            self.watches.remove(&path, number);
            self.add_watches(&who, -1, path.len() + token.len());
        }
        for transaction in transactions.into_values() {
            self.forget_bytes(&who, transaction.bytes);
        }
    }

    fn introduce(&mut self, payload: &[u8], host: &mut dyn Host) -> Result<Vec<u8>, ErrorCode> {
        let [id, gfn, port, ..] = strings(payload)[..] else {
            return Err(ErrorCode::EINVAL);
        };
        let domid = domid(id).ok_or(ErrorCode::EINVAL)?;
        let gfn = u64::try_from(number(gfn)).unwrap_or(0);
        let port = u32::try_from(number(port)).map_err(|_| ErrorCode::EINVAL)?;
        if port == 0 {
            return Err(ErrorCode::EINVAL);
        }
        match self.ring(domid) {
            Some(id) => {
                host.attach_again(domid, port);
                self.silence(id);
                self.list(id);
            }
            None => {
                host.attach(domid, gfn, port)?;
                self.now += 1;
                let domain = self.domains.known(domid, self.now);
                domain.is_introduced = true;
                domain.is_shutdown = false;
                let id = self.connect_ring(domid);
                self.list(id);
                self.news.push(News::Special(INTRODUCE));
            }
        }
        Ok(ok())
    }

    /// Returns the domain that a payload names.
    ///
    /// # Errors
    /// EINVAL for dom0, ENOENT for a domain that is not introduced.
    fn introduced(&self, payload: &[u8]) -> Result<u16, ErrorCode> {
        let number = number(one(payload)?);
        if number == 0 {
            return Err(ErrorCode::EINVAL);
        }
        let domid = u16::try_from(number).ok();
        let domid = domid.filter(|domid| self.domains.is_introduced(*domid));
        domid.ok_or(ErrorCode::ENOENT)
    }

    fn set_target(&mut self, payload: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let [domain, target, ..] = strings(payload)[..] else {
            return Err(ErrorCode::EINVAL);
        };
        let find = |text| {
            let domid = domid(text).ok_or(ErrorCode::ENOENT)?;
            let id = self.ring(domid).ok_or(ErrorCode::ENOENT)?;
            Ok((domid, id))
        };
        let ((_, id), (target, _)) = (find(domain)?, find(target)?);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.who.target = Some(target);
        }
        Ok(ok())
    }
}
