//! One entry of the HTTP API, defined once: the method, the path, who may ask, what a request may say and what the answer
//! is. The router and the API's document are made from the same entries, so that neither has what the other lacks, and the
//! scope that the document names is the one that is asked for.

use std::sync::Arc;

use axum::RequestPartsExt as _;
use axum::extract::{RawPathParams, Request, State};
use axum::handler::Handler;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::actor::Actor;
use super::app::{App, body_bytes, caller};
use super::auth::{Bearer, bearer_token};
use super::status::{ApiError, excerpt};
use super::values::{Field, Values};
use crate::fleet::FleetView;
use crate::fleet::record::Scope;

/// Where a reader of events goes on.
const LAST_EVENT_ID: &str = "last-event-id";

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody.
    Open,
    /// The bearer of a token with this scope that is bound to no tenant.
    Scope(Scope),
    /// The bearer of a token with this scope; one that is bound to a tenant gets what is that tenant's.
    Own(Scope),
    /// The bearer of a token that mints, for its tenant where it is bound to one. The handler looks at the token itself,
    /// which may stand elsewhere.
    Minting,
    /// The bearer of an access token that the homeserver knows. The handler looks at it.
    Homeserver,
    /// The bearer of a viewer's token; anybody where only this machine reaches the listener. The handler looks at it.
    Metrics,
}

/// One method of one path.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    /// The name of the operation, for generated clients.
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) description: &'static str,
    /// Parameters of the query.
    pub(crate) query: &'static [Field],
    /// Fields of the body; `None` where none is read.
    pub(crate) body: Option<&'static [Field]>,
    /// The type of the body.
    pub(crate) body_type: &'static str,
    pub(crate) answer: Answer,
    pub(crate) serve: MethodRouter<App>,
}

/// What a request is answered with.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) schema: Option<fn(&mut SchemaGenerator) -> Schema>,
}

/// A request that was let in and is well formed.
pub(crate) struct Call {
    pub(crate) app: App,
    pub(crate) view: Arc<FleetView>,
    pub(crate) actor: Actor,
    /// The tenant that the bearer is bound to, where the route lets such a one in.
    pub(crate) tenant: Option<String>,
    /// The event that the caller has seen last, as it says.
    pub(crate) last_event_id: Option<String>,
    pub(crate) query: Values,
    pub(crate) body: Values,
    path: Vec<(String, String)>,
}

impl Call {
    /// The part of the path that the route calls `name`.
    pub(crate) fn part(&self, name: &str) -> &str {
        let part = self.path.iter().find(|(known, _)| known == name);
        part.map_or("", |(_, value)| value)
    }
}

/// What every route is made of, before it is said what else it has.
pub(crate) struct Draft {
    method: Method,
    path: &'static str,
    id: &'static str,
    access: Access,
    query: &'static [Field],
    body: Option<&'static [Field]>,
}

impl Draft {
    pub(crate) fn new(
        method: Method,
        path: &'static str,
        id: &'static str,
        access: Access,
    ) -> Self {
        Self {
            method,
            path,
            id,
            access,
            query: &[],
            body: None,
        }
    }

    pub(crate) fn query(self, query: &'static [Field]) -> Self {
        Self { query, ..self }
    }

    pub(crate) fn body(self, body: &'static [Field]) -> Self {
        Self {
            body: Some(body),
            ..self
        }
    }

    /// Answers by a function that gets the checked request.
    pub(crate) fn calls<F, R>(self, handler: F) -> Route
    where
        F: Fn(Call) -> R + Copy + Send + Sync + 'static,
        R: Future<Output = Result<Response, ApiError>> + Send,
    {
        let (access, query, body) = (self.access, self.query, self.body);
        let has_parts = self.path.contains('{');
        self.serves(move |State(app): State<App>, request: Request| async move {
            let form = Form {
                access,
                query,
                body,
                has_parts,
            };
            handler(form.read(app, request).await?).await
        })
    }

    /// Answers by a handler of axum's, which checks the request itself.
    pub(crate) fn serves<H, T>(self, handler: H) -> Route
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(self.method.clone());
        let filter = filter.expect("the routes use the methods of RFC 9110");
        Route {
            method: self.method,
            path: self.path,
            access: self.access,
            id: self.id,
            summary: "",
            description: "",
            query: self.query,
            body: self.body,
            body_type: "application/json",
            answer: Answer {
                status: 200,
                content_type: "application/json",
                schema: None,
            },
            serve: on(filter, handler),
        }
    }
}

impl Route {
    /// What it is for, in a line, and what else there is to know.
    pub(crate) fn says(self, summary: &'static str, description: &'static str) -> Self {
        Self {
            summary,
            description,
            ..self
        }
    }

    /// Answers 200 with JSON of this form.
    pub(crate) fn answers<T: JsonSchema>(self) -> Self {
        self.answers_with::<T>(200)
    }

    /// Answers `status` with JSON of this form.
    pub(crate) fn answers_with<T: JsonSchema>(mut self, status: u16) -> Self {
        self.answer.status = status;
        self.answer.schema = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    /// Answers 200 with a text.
    pub(crate) fn answers_text(mut self, content_type: &'static str) -> Self {
        self.answer.content_type = content_type;
        self
    }

    /// Whether it changes the fleet.
    pub(crate) fn changes(&self) -> bool {
        match self.access {
            Access::Scope(_) | Access::Own(_) => self.method != Method::GET,
            Access::Open | Access::Minting | Access::Homeserver | Access::Metrics => false,
        }
    }
}

/// What a request must be like.
#[derive(Clone, Copy)]
struct Form {
    access: Access,
    query: &'static [Field],
    body: Option<&'static [Field]>,
    has_parts: bool,
}

impl Form {
    async fn read(self, app: App, request: Request) -> Result<Call, ApiError> {
        let view = app.handle.view();
        let from = caller(&request);
        let bearer = match self.access {
            Access::Scope(scope) | Access::Own(scope) => {
                let is_own = matches!(self.access, Access::Own(_));
                let admitted = bearer_token(request.headers()).and_then(|token| match is_own {
                    true => app.guard.admit(&view, token, scope),
                    false => app.guard.admit_to_fleet(&view, token, scope),
                });
                admitted.inspect_err(|error| {
                    if request.method() != Method::GET {
                        let path = excerpt(request.uri().path());
                        tracing::warn!(method = %request.method(), path, ?from, refused = error.code(), "a change was refused");
                    }
                })?
            }
            Access::Open | Access::Minting | Access::Homeserver | Access::Metrics => {
                Bearer::default()
            }
        };
        let query = Values::of_query(self.query, request.uri().query().unwrap_or(""))?;
        let (mut parts, body) = request.into_parts();
        let last_event_id = parts.headers.get(LAST_EVENT_ID);
        let last_event_id = last_event_id.and_then(|id| Some(id.to_str().ok()?.to_owned()));
        let path = if self.has_parts {
            let place =
                || ApiError::bad_parameter("path", "it is not UTF-8", "percent-encoded UTF-8");
            let path = parts
                .extract::<RawPathParams>()
                .await
                .map_err(|_| place())?;
            path.iter()
                .map(|(name, part)| (name.to_owned(), part.to_owned()))
                .collect()
        } else {
            Vec::new()
        };
        let body = match self.body {
            Some(fields) => {
                let request = Request::from_parts(parts, body);
                Values::of_body(fields, &body_bytes(request).await?)?
            }
            None => Values::default(),
        };
        Ok(Call {
            app,
            view,
            actor: Actor {
                name: bearer.name,
                from,
            },
            tenant: bearer.tenant,
            last_event_id,
            query,
            body,
            path,
        })
    }
}
