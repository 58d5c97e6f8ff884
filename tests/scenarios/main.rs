//! End-to-end tests: stock kubectl against whole clusters.

mod access;
mod aggregation;
mod bad_input;
mod containers;
mod etcd;
mod faults;
mod guestbook;
mod kube_rs;
mod lifecycle;
mod nodes;
mod objects;
mod python;
mod store;
mod workloads;

use coracle_tests::{Group, Needs, Shape, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    run(vec![simulated(), faults(), containers(), etcd()])
}

/// Everything that needs no container.
fn simulated() -> Group {
    Group {
        name: "simulated",
        needs: Needs::Nothing,
        shape: Shape { flags: "--nodes 0 --simulated-nodes 3", etcd: false },
        steps: &[
            ("up_tells_its_steps_and_every_process_is_well", lifecycle::up_tells_its_steps),
            ("no_component_was_forbidden_anything_at_the_first_start", lifecycle::nothing_was_forbidden),
            ("up_on_a_cluster_that_is_up_says_so", lifecycle::up_again_says_already_up),
            ("keys_are_readable_by_their_owner_alone", lifecycle::keys_are_private),
            ("the_first_objects_are_there", objects::first_objects),
            ("an_object_is_created_shown_and_deleted", objects::create_show_delete),
            ("apply_merges_three_ways", objects::apply_three_ways),
            ("every_kind_of_patch_does_its_work", objects::patches),
            ("a_write_over_an_unseen_change_is_a_conflict", objects::conflict),
            ("a_dry_run_changes_nothing", objects::dry_run),
            ("a_watch_tells_every_change_in_order", objects::watch),
            ("a_long_list_comes_in_pages_that_miss_nothing", objects::pages),
            ("labels_and_fields_select", objects::selectors),
            ("server_side_apply_knows_owners", objects::server_side_apply),
            ("kube_rs_reads_and_writes_objects", kube_rs::reads_and_writes),
            ("kube_rs_patches_in_every_way", kube_rs::patches),
            ("kube_rs_watchers_of_both_sorts_see_every_change", kube_rs::watchers),
            ("a_kube_rs_controller_cleans_up_before_an_object_goes", kube_rs::controller),
            ("a_kind_derived_by_kube_rs_is_served", kube_rs::derived_kind),
            ("the_python_client_finds_what_it_expects", python::objects),
            ("explain_describes_fields", objects::explain),
            ("a_namespace_takes_its_content_with_it", objects::namespace),
            ("bad_input_is_refused_with_the_field_and_changes_nothing", bad_input::table),
            ("unknown_fields_are_refused_or_warned_of", bad_input::unknown_fields),
            ("nobody_may_do_what_no_rule_grants", access::deny_by_default),
            ("a_role_grants_what_it_says_and_no_more", access::roles),
            ("a_service_account_token_is_an_identity", access::tokens),
            ("an_api_that_nobody_serves_says_so_and_harms_nothing", aggregation::unavailable),
            ("a_deployment_rolls_out_scales_and_rolls_back", workloads::deployment),
            ("a_service_follows_the_pods_it_selects", workloads::service),
            ("a_stateful_set_keeps_names_and_order", workloads::stateful_set),
            ("a_daemon_set_is_on_every_node", workloads::daemon_set),
            ("a_job_completes_and_a_cron_job_makes_jobs", workloads::jobs),
            ("a_quota_and_a_limit_range_bound_a_namespace", workloads::quota),
            ("an_unschedulable_pod_says_why", nodes::unschedulable),
            ("a_pod_that_does_not_fit_its_node_is_turned_away", nodes::turned_away),
            ("drain_heeds_budgets_and_moves_pods", nodes::drain),
            ("down_leaves_nothing_behind", lifecycle::down_leaves_nothing),
        ],
    }
}

/// Processes die.
fn faults() -> Group {
    Group {
        name: "faults",
        needs: Needs::Nothing,
        shape: Shape { flags: "--nodes 0 --simulated-nodes 2 --stores 3 --apiservers 2", etcd: false },
        steps: &[
            ("etcdctl_finds_a_store_that_it_knows", store::etcdctl),
            ("no_acknowledged_write_is_lost_when_processes_are_killed", faults::writes_survive_kills),
            ("a_leading_store_that_stands_still_is_left_for_the_next", faults::still_leader),
            ("a_follower_of_a_watch_misses_nothing_when_its_apiserver_dies", faults::watch_survives),
            ("another_scheduler_and_controller_manager_take_over", faults::leaders_are_replaced),
            ("a_cluster_resumes_with_its_data", faults::resume),
        ],
    }
}

/// Real containers, real addresses, real names.
fn containers() -> Group {
    Group {
        name: "containers",
        needs: Needs::Containers,
        shape: Shape { flags: "--nodes 2", etcd: false },
        steps: &[
            ("nodes_and_name_service_are_ready", containers::ready),
            ("no_component_was_forbidden_anything_at_the_first_start", lifecycle::nothing_was_forbidden),
            ("a_deployment_serves_under_its_services_name", containers::service_by_name),
            ("a_rollout_replaces_containers_without_a_gap", containers::rollout),
            ("a_port_of_the_node_leads_to_its_pod_and_to_one_at_a_time", containers::host_ports),
            ("logs_exec_and_port_forward_reach_containers", containers::streams),
            ("kube_rs_streams_to_and_from_containers", kube_rs::container_streams),
            ("the_python_client_runs_commands_in_containers", python::containers),
            ("kubectl_debug_adds_a_container_to_a_pod_that_runs", containers::debug),
            ("a_pod_is_resized_in_place", containers::resize),
            ("probes_and_restarts_follow_the_containers_health", containers::probes),
            ("configuration_and_secrets_are_files_and_variables", containers::configuration),
            ("a_claim_gets_a_folder_that_goes_with_it", containers::claims),
            ("an_aggregated_server_answers_in_the_callers_name", aggregation::extension),
            ("an_init_container_goes_first_and_a_job_ends", containers::job),
            ("the_guestbook_keeps_what_it_is_told", guestbook::guestbook),
            ("down_leaves_no_mount_namespace_or_rule", containers::down_leaves_nothing),
        ],
    }
}

/// Another store behind the same API.
fn etcd() -> Group {
    Group {
        name: "etcd",
        needs: Needs::Etcd,
        shape: Shape { flags: "--nodes 0 --simulated-nodes 1 --stores 1", etcd: true },
        steps: &etcd::STEPS,
    }
}
