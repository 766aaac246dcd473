//! The parsing of a query.

use super::wire::{self, Edns, Extra, HEADER_LEN, Header, Question, class, flag, rcode, rtype};

/// The parts of a query that could be parsed, and the response code that the parsing gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'q> {
    pub(super) question: Option<Question<'q>>,
    pub(super) edns: Option<Edns<'q>>,
    pub(super) rcode: u16,
}

impl<'q> Request<'q> {
    pub(super) fn read(message: &'q [u8], header: &Header) -> Self {
        let mut request = Self {
            question: None,
            edns: None,
            rcode: rcode::NOERROR,
        };
        let is_query = header.flags & flag::OPCODE == 0;
        let read = request.try_read(message, header, is_query);
        // An operation other than QUERY may have another format: the parts that could be parsed are echoed.
        if !is_query {
            request.refuse(rcode::NOTIMP);
        } else if read.is_none() {
            request = Self {
                question: None,
                edns: None,
                rcode: rcode::FORMERR,
            };
        }
        request
    }

    fn try_read(&mut self, message: &'q [u8], header: &Header, is_query: bool) -> Option<()> {
        let [questions, answers, authority, additional] = header.counts;
        let mut at = HEADER_LEN;
        // RFC 9619: one question; or none, in order to get a cookie (RFC 7873 section 5.4).
        match questions {
            0 => {}
            1 => {
                let question = Question::read(message)?;
                at += question.bytes.len();
                self.question = Some(question);
            }
            _ => return None,
        }
        let is_ixfr = matches!(self.question, Some(question) if question.qtype == rtype::IXFR);
        if is_query && (answers > 0 || authority > 0 && !is_ixfr) {
            return None;
        }
        for _ in 0..u32::from(answers) + u32::from(authority) {
            at = wire::skip_record(message, at)?;
        }
        let extra = Extra::read(message, at, additional)?;
        self.edns = extra.edns;
        match (&self.question, extra.edns) {
            (_, Some(edns)) if edns.version != 0 => self.refuse(rcode::BADVERS),
            (None, Some(edns)) if edns.cookie.is_some() => {}
            (None, _) => return None,
            _ if extra.is_signed => self.refuse(rcode::NOTAUTH),
            (Some(question), _) => match question.qclass {
                class::IN | class::CH | class::ANY => {}
                _ => self.refuse(rcode::REFUSED),
            },
        }
        Some(())
    }

    pub(super) fn refuse(&mut self, rcode: u16) {
        self.rcode = rcode;
    }
}
