//! The API's own description, made from those of its endpoints (OpenAPI 3.1).

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::header;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Components, Info, OpenApi, Required,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn},
        schema::{ObjectBuilder, Type},
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
        tag::TagBuilder,
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    Server, guard,
    reply::{Failure, FailureInside, Failures},
};

const TAG: &str = "server";

/// It does not change while the process lives.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let document = complete(super::router().into_openapi());
    document.to_json().expect("a description is text, numbers and lists")
});

const ABOUT: &str = "\
What a Roadstead server has cached, spent and left, and what is to be done about it. Sizes are bytes, \
times whole seconds since 1970; lists come in pages, and `next` is the `after` of the following one. \
What changes something needs the header `X-Roadstead: 1`. Where admin.htpasswd is configured, each \
request must carry the password of one of its users; where admin.tls.client_ca is, each connection a \
certificate.";

pub(super) fn router() -> OpenApiRouter<Server> {
    OpenApiRouter::new().routes(routes!(openapi))
}

#[utoipa::path(get, path = "/api/v1/openapi.json", tag = TAG,
    responses((status = OK, description = "An OpenAPI 3.1 document", body = serde_json::Value),
        Failures))]
/// This description.
async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}

/// Says what all endpoints have in common.
fn complete(mut document: OpenApi) -> OpenApi {
    document.info = Info::new("Roadstead", env!("CARGO_PKG_VERSION"));
    document.info.description = Some(ABOUT.to_owned());
    document.tags = Some(
        [
            ("server", "The process itself"),
            ("status", "How it goes, and went lately"),
            ("cache", "What is cached, and what is kept or goes"),
            ("repositories", "Repositories and their tags"),
            ("upstreams", "The registries"),
        ]
        .map(|(name, about)| TagBuilder::new().name(name).description(Some(about)).build())
        .into(),
    );
    let components = document.components.get_or_insert_with(Components::new);
    for (name, schema) in
        [(Failure::name(), Failure::schema()), (FailureInside::name(), FailureInside::schema())]
    {
        components.schemas.insert(name.into_owned(), schema);
    }
    let password = SecurityScheme::Http(Http::new(HttpAuthScheme::Basic));
    components.security_schemes.insert("password".to_owned(), password.into());
    let nothing: [&str; 0] = [];
    document.security =
        Some(vec![SecurityRequirement::default(), SecurityRequirement::new("password", nothing)]);
    for item in document.paths.paths.values_mut() {
        let changes = [&mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        changes.into_iter().flatten().for_each(guarded);
    }
    document
}

fn guarded(change: &mut Operation) {
    change.parameters.get_or_insert_default().push(header_parameter().into());
}

fn header_parameter() -> Parameter {
    let (name, value) = guard::HEADER;
    let schema = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([value])).build();
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::True)
        .description(Some("Says that this is no page of another site"))
        .schema(Some(schema))
        .build()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn document() -> Value {
        serde_json::from_str(&DOCUMENT).unwrap()
    }

    #[test]
    fn every_reference_within_it_leads_somewhere() {
        fn walk(value: &Value, document: &Value) {
            match value {
                Value::Object(object) => {
                    if let Some(Value::String(reference)) = object.get("$ref") {
                        let place = reference.strip_prefix('#').unwrap();
                        assert!(document.pointer(place).is_some(), "{reference}");
                    }
                    object.values().for_each(|inside| walk(inside, document));
                }
                Value::Array(list) => list.iter().for_each(|inside| walk(inside, document)),
                _ => {}
            }
        }
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        walk(&document, &document);
    }

    #[test]
    fn each_operation_says_what_it_is_and_what_it_answers() {
        let document = document();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = format!("{method} {path}");
                let said = operation["summary"].as_str().unwrap_or_default();
                assert!(!said.is_empty(), "{name} does not say what it is for");
                let answers = operation["responses"].as_object().unwrap();
                assert!(answers.keys().any(|status| status.starts_with('2')), "{name}");
                for status in ["400", "401", "403", "500"] {
                    assert!(answers.contains_key(status), "{name} does not tell of {status}");
                }
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                let is_guarded = parameters.iter().any(|it| it["name"] == "x-roadstead");
                assert_eq!(is_guarded, method != "get", "{name}");
                for parameter in &parameters {
                    let about = parameter["description"].as_str().unwrap_or_default();
                    assert!(!about.is_empty(), "{name}: {}", parameter["name"]);
                }
            }
        }
    }
}
