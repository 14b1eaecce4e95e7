//! The page at `/dashboard`, and at `/`: the fleet for a person, in files of `dashboard/` that are parts of the program.
//!
//! The page asks for an API token and knows the public API alone. Nothing comes from elsewhere, no script or style stands in the
//! page itself, and nothing that the API says becomes markup: the policy of each file says so to the browser.

use axum::response::{IntoResponse as _, Response};
use http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue};

use super::route::Call;
use super::status::ApiError;

const PAGE: &str = include_str!("dashboard/index.html");
const STYLE: &str = include_str!("dashboard/style.css");
const ICON: &str = include_str!("dashboard/icon.svg");

/// The modules by their names.
const MODULES: &[(&str, &str)] = &[
    ("abuse.js", include_str!("dashboard/abuse.js")),
    ("api.js", include_str!("dashboard/api.js")),
    ("app.js", include_str!("dashboard/app.js")),
    ("capacity.js", include_str!("dashboard/capacity.js")),
    ("changes.js", include_str!("dashboard/changes.js")),
    ("chart.js", include_str!("dashboard/chart.js")),
    ("course.js", include_str!("dashboard/course.js")),
    ("dom.js", include_str!("dashboard/dom.js")),
    ("events.js", include_str!("dashboard/events.js")),
    ("format.js", include_str!("dashboard/format.js")),
    ("relays.js", include_str!("dashboard/relays.js")),
];

/// Lets files of this controller run and nothing else, keeps texts from becoming markup, and the page out of frames.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// `GET /` and `GET /dashboard`.
pub(crate) async fn page() -> Response {
    file("text/html; charset=utf-8", PAGE)
}

/// `GET /dashboard/style.css`.
pub(crate) async fn style() -> Response {
    file("text/css; charset=utf-8", STYLE)
}

/// `GET /dashboard/icon.svg`.
pub(crate) async fn icon() -> Response {
    file("image/svg+xml", ICON)
}

/// `GET /dashboard/{module}`.
pub(crate) async fn module(call: Call) -> Result<Response, ApiError> {
    let wanted = call.part("module");
    let known = MODULES.iter().find(|(name, _)| *name == wanted);
    let (_, text) = known.ok_or_else(|| ApiError::unknown_path(&format!("/dashboard/{wanted}")))?;
    Ok(file("text/javascript; charset=utf-8", text))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let opener = HeaderName::from_static("cross-origin-opener-policy");
    let resource = HeaderName::from_static("cross-origin-resource-policy");
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (opener, "same-origin"),
        (resource, "same-origin"),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_from_elsewhere_or_becomes_markup() {
        let files = [("index.html", PAGE), ("style.css", STYLE)];
        for (name, text) in files.iter().chain(MODULES) {
            // The name of a namespace is no address that anything is fetched from.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for foreign in [
                "http://",
                "https://",
                "@import",
                "url(",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "localStorage",
                "document.cookie",
            ] {
                assert!(!text.contains(foreign), "{name}: {foreign}");
            }
        }
        for inline in ["<style", " style=", " onclick", " onload", " onsubmit"] {
            assert!(!PAGE.contains(inline), "{inline}");
        }
        let scripts: Vec<_> = PAGE.split("<script").skip(1).collect();
        assert_eq!(scripts, [scripts[0]], "one script");
        assert!(scripts[0].starts_with(" type=\"module\" src=\"dashboard/app.js\"></script>"));
    }

    #[test]
    fn every_module_that_one_imports_is_served() {
        for (name, text) in MODULES {
            for import in text.split("from \"./").skip(1) {
                let wanted = import.split('"').next().unwrap();
                let known = MODULES.iter().any(|(module, _)| *module == wanted);
                assert!(known, "{name}: {wanted}");
            }
        }
    }

    #[test]
    fn the_page_never_changes_the_fleet() {
        for (name, text) in MODULES {
            for method in ["POST", "PUT", "DELETE", "PATCH"] {
                assert!(!text.contains(method), "{name}: {method}");
            }
        }
    }
}
