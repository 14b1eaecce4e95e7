//! The way of requests into the HTTP API.
//!
//! Requests for credentials, which are nearly all there are, go straight to their handlers: a router that may hold anything
//! boxes and copies each request several times. All others go by the router, which knows the same paths, and so do those of
//! web pages, for the router knows about origins.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::ORIGIN;
use http::{Method, Request};
use hyper::body::Incoming;
use tower::Service;
use tracing::Instrument as _;

use super::app::App;
use super::http::{Arrival, finish};
use super::{ice_servers, turn_rest};

/// The HTTP API as one service.
#[derive(Clone)]
pub(crate) struct Front {
    app: App,
    router: Router,
}

/// A path that does not go by the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Straight {
    Turn,
    IceServers,
}

impl Straight {
    /// The straight way of `request`, if it has one.
    fn of<B>(request: &Request<B>) -> Option<Self> {
        if request.headers().contains_key(ORIGIN) {
            return None;
        }
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::POST, "/turn") => Some(Self::Turn),
            (&Method::POST, "/v1/ice-servers") => Some(Self::IceServers),
            (_, _) => None,
        }
    }

    /// The route, as metrics name it.
    fn route(self) -> &'static str {
        match self {
            Self::Turn => "/turn",
            Self::IceServers => "/v1/ice-servers",
        }
    }
}

impl Front {
    pub(crate) fn new(app: App, router: Router) -> Self {
        Self { app, router }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let Some(way) = Straight::of(&request) else {
            return Box::pin(self.router.call(request));
        };
        let app = App::clone(&self.app);
        Box::pin(async move {
            let arrival = Arrival::of(way.route(), request.method());
            let (request, span) = (request.map(Body::new), arrival.span.clone());
            let state = State(App::clone(&app));
            let answer = match way {
                Straight::Turn => turn_rest::turn(state, request).instrument(span).await,
                Straight::IceServers => {
                    ice_servers::ice_servers(state, request)
                        .instrument(span)
                        .await
                }
            };
            Ok(finish(&app, arrival, answer.into_response()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::route::Access;
    use super::super::routes::routes;
    use super::*;

    #[track_caller]
    fn check(method: Method, uri: &str, origin: bool, way: Option<Straight>) {
        let mut request = Request::builder().method(method).uri(uri);
        if origin {
            request = request.header(ORIGIN, "https://meet.example.org");
        }
        assert_eq!(Straight::of(&request.body(()).unwrap()), way, "{uri}");
    }

    #[test]
    fn only_requests_for_credentials_that_no_page_makes_go_straight() {
        let turn = "/turn?service=turn&username=a";
        check(Method::GET, turn, false, Some(Straight::Turn));
        check(Method::POST, "/turn", false, Some(Straight::Turn));
        check(
            Method::POST,
            "/v1/ice-servers",
            false,
            Some(Straight::IceServers),
        );
        check(Method::GET, turn, true, None);
        check(Method::DELETE, "/turn", false, None);
        check(Method::GET, "/v1/ice-servers", false, None);
        check(Method::GET, "/turn/", false, None);
        check(Method::GET, "/v1/nodes", false, None);
    }

    #[test]
    fn what_goes_straight_is_every_route_that_mints_and_no_other() {
        for route in routes() {
            let request = Request::builder().method(&route.method).uri(route.path);
            let way = Straight::of(&request.body(()).unwrap());
            let named = way.map(Straight::route);
            let minting = (route.access == Access::Minting).then_some(route.path);
            assert_eq!(named, minting, "{} {}", route.method, route.path);
        }
    }
}
