//! The API's document, OpenAPI 3.1, made from the same [routes](super::routes) as the router.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema as _, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::gate::LIVENESS;
use super::matrix::RefusalBody;
use super::route::{Access, Route};
use super::routes::routes;
use super::status::Envelope;
use super::values::{Kind, object};

const TITLE: &str = "Turnfleet controller";
const DESCRIPTION: &str = "Credentials with lists of healthy relays for applications, and the fleet for its operators. \
    Requests carry an API token as `Authorization: Bearer`; what an operation asks for is the role in its `security`. A \
    token that is bound to a tenant mints for that tenant's users, as `tenant/user`, and opens nothing else. Every refusal \
    has the same body, which says what was wrong, where, and what was expected; those to Matrix clients have the form of \
    their specification.";

/// The document of the HTTP API.
#[must_use]
pub fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12().for_serialize();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut generator = SchemaGenerator::new(settings);
    let mut paths = Map::new();
    for route in routes() {
        let operation = operation(&route, &mut generator);
        let path = paths
            .entry(route.path)
            .or_insert_with(|| Value::Object(Map::new()));
        path[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    let refusal = generator.subschema_for::<Envelope<'static>>();
    let to_matrix = generator.subschema_for::<RefusalBody<'static>>();
    json!({
        "openapi": "3.1.0",
        "info": { "title": TITLE, "description": DESCRIPTION, "version": "1" },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "responses": {
                "Refusal": {
                    "description": "What was wrong, where, and what was expected.",
                    "content": { "application/json": { "schema": refusal } },
                },
                "MatrixRefusal": {
                    "description": "A standard error response of the Matrix client-server API.",
                    "content": { "application/json": { "schema": to_matrix } },
                },
            },
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "matrix": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The access token of a user of the homeserver.",
                },
            },
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "security": security(route.access),
        "parameters": parameters(route),
        "responses": responses(route, generator),
    });
    if !route.description.is_empty() {
        operation["description"] = json!(route.description);
    }
    if let Some(fields) = route.body {
        let content_type = route.body_type;
        operation["requestBody"] = json!({
            "required": fields.iter().any(|field| field.required),
            "content": { content_type: { "schema": object(fields) } },
        });
    }
    operation
}

fn security(access: Access) -> Value {
    match access {
        Access::Open => json!([]),
        Access::Scope(scope) | Access::Own(scope) => json!([{ "bearer": [scope.name()] }]),
        Access::Minting => json!([{ "bearer": ["mint"] }]),
        Access::Homeserver => json!([{ "matrix": [] }]),
        Access::Metrics => json!([{}, { "bearer": ["viewer"] }]),
    }
}

fn parameters(route: &Route) -> Vec<Value> {
    let parts = route.path.split(['{', '}']).skip(1).step_by(2);
    let parts = parts.map(|name| {
        let schema = json!({ "type": "string", "minLength": 1 });
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    });
    let query = route.query.iter().map(|field| {
        json!({
            "name": field.name,
            "in": "query",
            "required": field.required,
            "description": field.says,
            "schema": field.schema(false),
            "explode": false,
        })
    });
    parts.chain(query).collect()
}

fn responses(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let schema = match route.answer.schema {
        Some(schema) => schema(generator),
        None => <String>::json_schema(generator),
    };
    let mut responses = Map::new();
    let answer = json!({
        "description": route.summary,
        "content": { route.answer.content_type: { "schema": schema } },
    });
    responses.insert(route.answer.status.to_string(), answer);
    let form = match route.access {
        Access::Homeserver => "MatrixRefusal",
        Access::Open | Access::Scope(_) | Access::Own(_) | Access::Minting | Access::Metrics => {
            "Refusal"
        }
    };
    let refusal = json!({ "$ref": format!("#/components/responses/{form}") });
    for status in refusals(route) {
        responses.insert(status.to_string(), refusal.clone());
    }
    Value::Object(responses)
}

/// The statuses with which a request of the route may be refused.
fn refusals(route: &Route) -> Vec<u16> {
    if route.access == Access::Homeserver {
        return vec![401, 403, 404, 429, 502, 503];
    }
    let mut statuses = Vec::new();
    let has_parts = route.path.contains('{');
    let is_checked = matches!(
        route.access,
        Access::Scope(_) | Access::Own(_) | Access::Minting
    );
    if is_checked || has_parts || !route.query.is_empty() {
        statuses.push(400);
    }
    if route.access != Access::Open {
        statuses.extend([401, 403, 429]);
    }
    let mut query = route.query.iter();
    let names_tenant = query.any(|field| matches!(field.kind, Kind::TenantName));
    if has_parts || names_tenant || route.changes() {
        statuses.push(404);
    }
    if route.body.is_some() {
        statuses.extend([408, 413, 415]);
    }
    if route.changes() {
        statuses.push(409);
    }
    if route.changes() || is_checked {
        statuses.push(500);
    }
    // While the controller starts, it answers nothing else.
    if route.path != LIVENESS {
        statuses.push(503);
    }
    statuses
}
