"""The bytes that a client of each method receives, sends and keeps in a round, in closed form, with the plain mean."""

SUMS = 4 * (7 + 1)  # the counts and sums of a round's records, and the weight of the delta


def expected(method, weights):
    """Bytes down, up and kept; None for what depends on the cohort. `weights` are the global weights of a run."""
    size = 5 if method == "fed_bn" else 3
    model, head = (sum(w.nbytes for w in part) for part in (weights[:size], weights[size - 2 : size]))
    units, classes = weights[size - 2].shape
    prototypes = 4 * units * classes
    normalization = 4 * (2 + 2)
    down, up, kept = {
        "meta_sgd": (2 * model, 2 * model, 0),  # with the rates
        "ifca": (2 * model, 2 * model + 4 * (2 + 1), 0),  # two clusters; the membership and its weight
        "fed_recon": (model - head, model - head, 0),
        "fed_per": (model - head, model - head, head),
        "fed_rep": (model - head, model - head, head),
        "fed_bn": (model - normalization, model - normalization, normalization),
        "fed_babu": (model - head, model - head, 0),
        "fed_ala": (model, model, model + head + 4),  # shares, and a count of rounds
        "fed_rod": (model, model, head),
        # One byte says whether a class has a prototype. The sums by class go up with the counts of examples.
        "fed_proto": (prototypes + classes, prototypes + 4 * classes, model + prototypes + classes),
        "fed_amp": (None, 2 * model + 4, 2 * model),
        "ditto": (model, model, model),
        "p_fed_me": (model, model, model),
        "apfl": (model, model, model + 4),  # the share of the mixture
        "scaffold": (2 * model, 2 * model, model),  # with the control variates
        "mime_lite": (2 * model + 8, 2 * model + 4, 0),  # with the momentum and its two rates; the whole gradient
    }.get(method, (model, model, 0))
    return down, up + SUMS, kept
