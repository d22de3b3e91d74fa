//! What the commands print.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use crate::plan::Kind;
use crate::state::StackState;

/// Name, address and log of each process, aligned.
pub fn processes(state: &StackState) -> String {
    let mut rows = vec![["NAME", "STATE", "PID", "ADDRESS", "ADMIN", "LOG"].map(str::to_owned)];
    for process in &state.processes {
        rows.push([
            process.name.clone(),
            if process.is_running() { "running" } else { "dead" }.to_owned(),
            process.pid.to_string(),
            process.address.clone(),
            process.admin_address.clone().unwrap_or_default(),
            process.log_file.display().to_string(),
        ]);
    }
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

/// The processes as JSON, with whether each runs.
pub fn json(state: Option<&StackState>) -> anyhow::Result<String> {
    let processes = state.map(|state| state.processes.as_slice()).unwrap_or_default();
    let mut list = Vec::new();
    for process in processes {
        let mut entry = serde_json::to_value(process)?;
        entry["running"] = json!(process.is_running());
        list.push(entry);
    }
    let all = json!({
        "gateway_url": state.map(|state| &state.gateway_url),
        "partitions": state.map(|state| state.partitions),
        "replicas": state.map(|state| state.replicas),
        "processes": list,
    });
    Ok(serde_json::to_string_pretty(&all)?)
}

/// A checkout to paste into a shell, and the other commands.
pub fn what_next(state: &StackState, dir: &Path) -> String {
    if !state.processes.iter().any(|process| process.kind == Kind::Gateway) {
        return "\nKafka and Redis are ready; ./dev down stops them.\n".to_owned();
    }
    let mut text = format!("\nThe shop is at {}. One checkout, to be pasted:\n\n", state.gateway_url);
    for line in SESSION.lines() {
        let _ = writeln!(text, "    {}", line.replace("GATEWAY", &state.gateway_url));
    }
    let _ = write!(text, "\n./dev status, ./dev logs NAME [-f], ./dev down; data and logs are in {}\n", dir.display());
    text
}

const SESSION: &str = r#"shop=GATEWAY
post() { curl -sS -X POST "$shop$1"; echo >&2; }
id() { sed 's/.*_id" *: *"\([^"]*\)".*/\1/'; }
item=$(post /stock/item/create/5 | id)
post /stock/add/$item/10
user=$(post /payment/create_user | id)
post /payment/add_funds/$user/100
order=$(post /orders/create/$user | id)
post /orders/addItem/$order/$item/2
post /orders/checkout/$order
curl -sS $shop/orders/find/$order; echo
curl -sS $shop/stock/find/$item; echo
curl -sS $shop/payment/find_user/$user; echo
"#;
