//! What the engine made of the rules: the settings of a running container.

use serde_json::Value;

/// What is wrong with a container, as the engine inspects it; empty when it is confined.
pub fn complaints(container: &Value) -> Vec<String> {
    let host = &container["HostConfig"];
    let name = container["Name"].as_str().unwrap_or("a container");
    let mut found = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            found.push(format!("{name}: {what}"));
        }
    };
    must(host["ReadonlyRootfs"] == true, "its root file system can be written");
    must(host["Privileged"] == false, "it is privileged");
    must(host["CapDrop"] == serde_json::json!(["ALL"]) && host["CapAdd"].is_null(), "it has capabilities");
    let options = host["SecurityOpt"].as_array().map(Vec::as_slice).unwrap_or_default();
    must(options.iter().any(|option| option == "no-new-privileges:true"), "it may gain privileges");
    must(host["Memory"].as_u64().is_some_and(|bytes| bytes > 0), "its memory has no limit");
    must(host["PidsLimit"].as_u64().is_some_and(|count| count > 0), "its processes have no limit");
    must(host["LogConfig"]["Config"]["max-size"].is_string(), "its log has no end");
    let user = container["Config"]["User"].as_str().unwrap_or_default();
    must(!user.is_empty() && !user.starts_with("0") && !user.starts_with("root"), "it runs as root");
    let bindings = host["PortBindings"].as_object().into_iter().flatten();
    let mut addresses = bindings.flat_map(|(_, bound)| bound.as_array().into_iter().flatten());
    must(addresses.all(|bound| bound["HostIp"] == "127.0.0.1"), "it publishes a port to more than this machine");
    // A volume of an image that nobody has named piles up with every start.
    let mounts = container["Mounts"].as_array().into_iter().flatten();
    let mut volumes = mounts.filter(|mount| mount["Type"] == "volume").filter_map(|mount| mount["Name"].as_str());
    let is_anonymous = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    must(!volumes.any(is_anonymous), "it has a volume without a name");
    found
}
