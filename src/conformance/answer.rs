//! A response of the server, and what is to be seen in it.

use turnfleet_turn::wire::{AttributeType, Class, ErrorCode, Message, Method};

use super::statement::{Shortfall, failed};

/// A response that fits a request.
#[derive(Clone)]
pub(super) struct Answer(pub(super) Vec<u8>);

impl Answer {
    /// The response read as a message: whoever made an answer has read it before.
    pub(super) fn message(&self) -> Message<'_> {
        Message::parse(&self.0).expect("an answer was parsed when it came")
    }

    /// The code with which the server refused; `None` where it granted.
    pub(super) fn code(&self) -> Option<u16> {
        let message = self.message();
        match message.class() {
            Class::SuccessResponse => None,
            // An error without a code is none that a statement names.
            Class::ErrorResponse | Class::Request | Class::Indication => Some(
                message
                    .error_code()
                    .and_then(Result::ok)
                    .map_or(0, ErrorCode::code),
            ),
        }
    }

    /// Whether there is an attribute of this type.
    pub(super) fn has(&self, kind: AttributeType) -> bool {
        self.message().has(kind)
    }

    /// The response in a few words.
    pub(super) fn summary(&self) -> String {
        match self.code() {
            None => "success".to_owned(),
            Some(code) => format!("error {code}"),
        }
    }

    /// Goes on where the server granted.
    pub(super) fn granted(&self) -> Result<&Self, Shortfall> {
        match self.code() {
            None => Ok(self),
            Some(_) => Err(failed("success", self.summary())),
        }
    }

    /// Goes on where the server refused with `code`.
    pub(super) fn refused(&self, code: u16) -> Result<&Self, Shortfall> {
        if self.code() == Some(code) {
            return Ok(self);
        }
        Err(failed(format!("error {code}"), self.summary()))
    }

    /// Goes on where the server refused with one of `codes`: what is malformed may also be unknown.
    pub(super) fn refused_with(&self, codes: &[u16]) -> Result<&Self, Shortfall> {
        if self.code().is_some_and(|code| codes.contains(&code)) {
            return Ok(self);
        }
        Err(failed(
            format!("one of the errors {codes:?}"),
            self.summary(),
        ))
    }

    /// Goes on where the response has an attribute.
    pub(super) fn with(&self, kind: AttributeType, name: &str) -> Result<&Self, Shortfall> {
        if self.has(kind) {
            return Ok(self);
        }
        let seen = format!("{} without it", self.summary());
        Err(failed(name, seen))
    }

    /// Goes on where the response lacks an attribute.
    pub(super) fn without(&self, kind: AttributeType, name: &str) -> Result<&Self, Shortfall> {
        if !self.has(kind) {
            return Ok(self);
        }
        let seen = format!("{} with it", self.summary());
        Err(failed(format!("no {name}"), seen))
    }
}

/// The name of a method in statements.
pub(super) fn name(method: Method) -> &'static str {
    const NAMES: [(Method, &str); 7] = [
        (Method::Binding, "Binding"),
        (Method::Allocate, "Allocate"),
        (Method::Refresh, "Refresh"),
        (Method::Send, "Send"),
        (Method::Data, "Data"),
        (Method::CreatePermission, "CreatePermission"),
        (Method::ChannelBind, "ChannelBind"),
    ];
    let mut names = NAMES.iter();
    let named = names.find(|(named, _)| *named == method);
    named.map_or("other", |(_, name)| name)
}
