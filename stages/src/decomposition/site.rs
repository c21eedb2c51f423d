//! Which matrices are decomposed, and into how many components (spec sections 2.4 and 2.5).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::models::LayerKind;
use crate::pattern;

/// A request to decompose every module whose name matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SitePattern {
    /// Which modules, with the wildcards of the Unix shell; `*` also crosses dots.
    pub pattern: String,
    /// How many components each of them gets.
    #[serde(rename = "C")]
    pub components: usize,
}

/// One matrix to decompose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SitePlan {
    /// The site's name: the module's, or `MODULE.pre_identity`.
    pub name: String,
    /// The index of the module, among those that can be decomposed.
    pub module: usize,
    /// Whether it is the identity inserted before that module instead of the module itself.
    pub identity: bool,
    /// How many components.
    pub components: usize,
}

/// The suffix of an inserted identity's name.
const IDENTITY: &str = "pre_identity";

/// Returns the sites in their canonical order: pattern by pattern, and for each pattern in the order of `names`.
///
/// * `names`: all module names in registration order, containers too.
/// * `modules`: those that can be decomposed, and what they are.
///
/// # Errors
/// The index of the pattern at fault (those of `identities` follow those of `sites`) and what is wrong with it.
pub fn plan(
    names: &[String],
    modules: &[(String, LayerKind)],
    sites: &[SitePattern],
    identities: &[SitePattern],
) -> Result<Vec<SitePlan>, (usize, String)> {
    // An identity is a module of its own, registered after the one it precedes; patterns see it too.
    let mut names = names.to_vec();
    let mut inserted: Vec<(String, usize)> = Vec::new();
    for (index, identity) in identities.iter().enumerate() {
        let at = sites.len() + index;
        let before = inserted.len();
        for name in names.clone().iter().filter(|name| pattern::matches(&identity.pattern, name)) {
            let module = modules
                .iter()
                .position(|(module, _)| module == name)
                .ok_or_else(|| (at, not_a_matrix(&identity.pattern, name)))?;
            if modules[module].1 == LayerKind::Embedding {
                return Err((at, before_an_embedding(&identity.pattern, name)));
            }
            if inserted.iter().any(|(other, _)| other == name) {
                return Err((at, format!("module `{name}` gets two identities; a second pattern matches it too")));
            }
            inserted.push((name.clone(), module));
        }
        if inserted.len() == before {
            return Err((at, no_match(&identity.pattern, &names)));
        }
    }
    for (name, _) in &inserted {
        let at = names.iter().position(|other| other == name).expect("the module was found above");
        names.insert(at + 1, format!("{name}.{IDENTITY}"));
    }
    let explicit = sites.iter().cloned();
    let implied = identities
        .iter()
        .map(|identity| SitePattern { pattern: format!("{}.{IDENTITY}", identity.pattern), ..identity.clone() });
    let mut plans: Vec<SitePlan> = Vec::new();
    for (index, site) in explicit.chain(implied).enumerate() {
        let before = plans.len();
        for name in names.iter().filter(|name| pattern::matches(&site.pattern, name)) {
            if let Some(other) = plans.iter().find(|plan| plan.name == *name) {
                return Err((
                    index,
                    format!("module `{}` is matched by two patterns; each may be decomposed once", other.name),
                ));
            }
            let (base, identity) =
                name.strip_suffix(&format!(".{IDENTITY}")).map_or((&name[..], false), |base| (base, true));
            let module = modules
                .iter()
                .position(|(module, _)| module == base)
                .ok_or_else(|| (index, not_a_matrix(&site.pattern, name)))?;
            plans.push(SitePlan { name: name.clone(), module, identity, components: site.components });
        }
        if plans.len() == before {
            return Err((index, no_match(&site.pattern, &names)));
        }
    }
    Ok(plans)
}

fn not_a_matrix(pattern: &str, name: &str) -> String {
    format!("pattern `{pattern}` matches `{name}`, which is neither a linear layer nor an embedding")
}

fn before_an_embedding(pattern: &str, name: &str) -> String {
    format!("pattern `{pattern}` matches `{name}`, an embedding; an identity can stand before linear layers only")
}

fn no_match(pattern: &str, names: &[String]) -> String {
    format!("pattern `{pattern}` matches no module; the target has `{}`", names.join("`, `"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn linear(names: &[&str]) -> Vec<(String, LayerKind)> {
        names.iter().map(|name| ((*name).to_owned(), LayerKind::Linear)).collect()
    }

    fn sites(patterns: &[(&str, usize)]) -> Vec<SitePattern> {
        patterns
            .iter()
            .map(|(pattern, components)| SitePattern { pattern: (*pattern).to_owned(), components: *components })
            .collect()
    }

    fn names_of(plans: &[SitePlan]) -> Vec<&str> {
        plans.iter().map(|plan| &plan.name[..]).collect()
    }

    #[test]
    fn sites_come_in_the_order_of_patterns_and_then_of_modules() {
        let names = strings(&["linear1", "linear2", "hidden_layers", "hidden_layers.0"]);
        let modules = linear(&["linear1", "hidden_layers.0", "linear2"]);
        let plans = plan(&names, &modules, &sites(&[("hidden_layers.*", 3), ("linear*", 20)]), &[]).unwrap();
        assert_eq!(names_of(&plans), ["hidden_layers.0", "linear1", "linear2"]);
        assert_eq!(
            plans.iter().map(|plan| (plan.module, plan.components)).collect::<Vec<_>>(),
            [(1, 3), (0, 20), (2, 20)]
        );
    }

    #[test]
    fn wrong_patterns_are_explained() {
        let names = strings(&["linear1", "linear2", "hidden_layers", "hidden_layers.0"]);
        let modules = linear(&["linear1", "hidden_layers.0", "linear2"]);
        let fail = |patterns: &[(&str, usize)]| plan(&names, &modules, &sites(patterns), &[]).unwrap_err();
        assert_eq!(
            fail(&[("linear1", 2), ("lin*", 2)]),
            (1, "module `linear1` is matched by two patterns; each may be decomposed once".to_owned())
        );
        assert_eq!(
            fail(&[("hidden*", 2)]),
            (
                0,
                "pattern `hidden*` matches `hidden_layers`, which is neither a linear layer nor an embedding"
                    .to_owned()
            )
        );
        assert_eq!(
            fail(&[("mlp", 2)]),
            (0, "pattern `mlp` matches no module; the target has `linear1`, `linear2`, `hidden_layers`, `hidden_layers.0`".to_owned())
        );
    }

    #[test]
    fn an_identity_before_something_else_than_a_linear_layer_is_explained() {
        let names = strings(&["token_embed", "blocks", "blocks.0", "blocks.0.q_proj", "blocks.0.ln1"]);
        let modules =
            [("token_embed".to_owned(), LayerKind::Embedding), ("blocks.0.q_proj".to_owned(), LayerKind::Linear)];
        let fail = |identity: &[(&str, usize)]| plan(&names, &modules, &[], &sites(identity)).unwrap_err();
        assert_eq!(
            fail(&[("token*", 2)]),
            (
                0,
                "pattern `token*` matches `token_embed`, an embedding; an identity can stand before linear layers only"
                    .to_owned()
            )
        );
        assert_eq!(
            fail(&[("*.ln1", 2)]),
            (0, "pattern `*.ln1` matches `blocks.0.ln1`, which is neither a linear layer nor an embedding".to_owned())
        );
        assert_eq!(
            fail(&[("*.q_proj", 2), ("blocks.?.q*", 2)]),
            (1, "module `blocks.0.q_proj` gets two identities; a second pattern matches it too".to_owned())
        );
        assert_eq!(
            fail(&[("*.k_proj", 2)]),
            (
                0,
                "pattern `*.k_proj` matches no module; the target has `token_embed`, `blocks`, `blocks.0`, \
                 `blocks.0.q_proj`, `blocks.0.ln1`"
                    .to_owned()
            )
        );
        assert_eq!(
            plan(&names, &modules, &sites(&[("*_embed", 3)]), &[]).unwrap(),
            [SitePlan { name: "token_embed".to_owned(), module: 0, identity: false, components: 3 }]
        );
    }

    #[test]
    fn identities_are_inserted_and_decomposed_after_the_other_sites() {
        let names = strings(&["layers", "layers.0", "layers.0.mlp_in", "layers.0.mlp_out"]);
        let modules = linear(&["layers.0.mlp_in", "layers.0.mlp_out"]);
        let plans = plan(&names, &modules, &sites(&[("*.mlp_out", 4)]), &sites(&[("*.mlp_in", 7)])).unwrap();
        assert_eq!(names_of(&plans), ["layers.0.mlp_out", "layers.0.mlp_in.pre_identity"]);
        assert!(plans[1].identity && plans[1].module == 0 && plans[1].components == 7);
        let broad = plan(&names, &modules, &sites(&[("*.mlp_in*", 4)]), &sites(&[("*.mlp_in", 7)])).unwrap_err();
        assert_eq!(
            broad.1,
            "module `layers.0.mlp_in.pre_identity` is matched by two patterns; each may be decomposed once"
        );
    }
}
