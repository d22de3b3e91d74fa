//! Renders an OpenAPI document as one HTML page that needs no script to be read.

use std::fmt::Write as _;

use serde_json::Value;

/// The whole page.
pub(super) fn page(document: &Value) -> String {
    let info = &document["info"];
    let mut html = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    let title = text(&info["title"]);
    let _ = writeln!(html, "<title>{title} {}</title>", text(&info["version"]));
    html.push_str(
        "<link rel=\"stylesheet\" href=\"/docs/style.css\">\n<script src=\"/docs/script.js\" defer></script>\n",
    );
    let _ = writeln!(html, "</head>\n<body>\n<h1>{title} <small>{}</small></h1>", text(&info["version"]));
    paragraphs(&mut html, &info["description"]);
    html.push_str("<p>The document itself: <a href=\"/openapi.json\">/openapi.json</a>.</p>\n");
    for tag in items(&document["tags"]) {
        let _ = writeln!(html, "<h2>{}</h2>", text(&tag["name"]));
        paragraphs(&mut html, &tag["description"]);
        for (path, method, operation) in operations(document) {
            if operation["tags"][0] == tag["name"] {
                article(&mut html, path, method, operation);
            }
        }
    }
    html.push_str("<h2>bodies</h2>\n");
    for (name, schema) in fields(&document["components"]["schemas"]) {
        let name = escape(name);
        let _ = writeln!(html, "<h3 id=\"{name}\">{name}</h3>\n<pre>{}</pre>", escape(&format!("{schema:#}")));
    }
    html.push_str("</body>\n</html>\n");
    html
}

fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = fields(&document["paths"]);
    paths.flat_map(|(path, verbs)| fields(verbs).map(move |(method, operation)| (path, method, operation)))
}

fn article(html: &mut String, path: &str, method: &str, operation: &Value) {
    let (path, method) = (escape(path), escape(&method.to_ascii_uppercase()));
    let id = text(&operation["operationId"]);
    let _ = writeln!(html, "<article id=\"{id}\">\n<h3><b class=\"{method}\">{method}</b> <code>{path}</code></h3>");
    let _ = writeln!(html, "<p><strong>{}.</strong></p>", text(&operation["summary"]));
    paragraphs(html, &operation["description"]);
    let _ = writeln!(html, "<form data-method=\"{method}\" data-path=\"{path}\">");
    for parameter in items(&operation["parameters"]) {
        let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
        let required = if parameter["required"] == true { " required" } else { "" };
        let _ = writeln!(
            html,
            "<label><code>{name}</code> <input name=\"{name}\" data-in=\"{place}\"{required} autocomplete=\"off\"> {} \
             <i>{}</i></label>",
            sentence(&parameter["description"]),
            escape(&bounds(&parameter["schema"])),
        );
    }
    html.push_str(
        "<button>Send</button>\n<output></output>\n</form>\n<details>\n<summary>Answers</summary>\n<table>\n",
    );
    for (status, response) in fields(&operation["responses"]) {
        answer(html, status, response);
    }
    html.push_str("</table>\n</details>\n</article>\n");
}

fn answer(html: &mut String, status: &str, response: &Value) {
    let _ = write!(html, "<tr><th>{}</th><td>{}", escape(status), sentence(&response["description"]));
    for (name, header) in fields(&response["headers"]) {
        let _ = write!(html, "<br><code>{}</code>: {}", escape(name), sentence(&header["description"]));
    }
    for (media_type, content) in fields(&response["content"]) {
        let schema = &content["schema"];
        let _ = write!(html, "<br>{}", escape(media_type));
        let named = [&schema["$ref"], &schema["allOf"][0]["$ref"]].into_iter().find_map(Value::as_str);
        if let Some(name) = named.and_then(|named| named.rsplit('/').next()) {
            let name = escape(name);
            let _ = write!(html, ": <a href=\"#{name}\">{name}</a>");
        }
        for kind in items(&schema["properties"]["type"]["enum"]) {
            let _ = write!(html, " <code>{}</code>", text(kind));
        }
    }
    html.push_str("</td></tr>\n");
}

/// What a parameter may be, in a few words.
fn bounds(schema: &Value) -> String {
    match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
        (Some(min), Some(max)) => format!("{min} to {max}"),
        _ => String::new(),
    }
}

/// Text with blank lines between its paragraphs.
fn paragraphs(html: &mut String, words: &Value) {
    for paragraph in words.as_str().unwrap_or_default().split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        let _ = writeln!(html, "<p>{}</p>", inline(paragraph));
    }
}

/// Text with code between back-ticks.
fn inline(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(index, part)| {
        let part = escape(part);
        if index % 2 == 1 { format!("<code>{part}</code>") } else { part }
    });
    parts.collect()
}

fn sentence(value: &Value) -> String {
    inline(value.as_str().unwrap_or_default())
}

fn text(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn fields(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_of_the_document_cannot_become_markup() {
        let nasty = "<script>alert('\"&')</script>";
        let document = json!({
            "info": { "title": nasty, "version": nasty, "description": nasty },
            "tags": [{ "name": nasty, "description": nasty }],
            "paths": { nasty: { nasty: {
                "operationId": nasty, "summary": nasty, "description": nasty, "tags": [nasty],
                "parameters": [{ "name": nasty, "in": nasty, "description": nasty, "schema": {} }],
                "responses": { nasty: {
                    "description": nasty,
                    "headers": { nasty: { "description": nasty } },
                    "content": { nasty: { "schema": {
                        "allOf": [{ "$ref": nasty }], "properties": { "type": { "enum": [nasty] } },
                    } } },
                } },
            } } },
            "components": { "schemas": { nasty: { "description": nasty } } },
        });
        let html = page(&document);
        assert!(html.contains("&lt;script&gt;") || html.contains("&lt;SCRIPT&gt;"));
        assert_eq!(html.to_ascii_lowercase().matches("<script").count(), 1, "only our own: {html}");
        assert!(!html.contains('\''), "no quotation mark of the text survives");
    }

    #[test]
    fn code_and_paragraphs_are_marked_up() {
        let mut html = String::new();
        paragraphs(&mut html, &json!("one `a<b` two\n\nthree"));
        assert_eq!(html, "<p>one <code>a&lt;b</code> two</p>\n<p>three</p>\n");
    }
}
