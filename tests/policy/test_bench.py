"""The goal of the evaluator: a decision stays flat from 10 to 1,000 rules."""

from bench.policy import measure_us, policy
from paddock.policy.decide import Question


def test_a_decision_costs_the_same_with_a_thousand_rules_as_with_ten() -> None:
    for one_host in (False, True):
        cost = {}
        for rules in (10, 1000):
            last = rules - 1
            host = "svc.example.com" if one_host else f"svc{last}.example{last % 7}.com"
            question = Question(host, 443, "http", "GET", f"/v{last if one_host else 1}/abc/items/42")
            cost[rules] = measure_us(policy(rules, one_host=one_host), question, loops=2000)[0]
        print(f"one host: {one_host}; " + ", ".join(f"{n} rules {us:.2f} µs" for n, us in cost.items()))
        # Linear would be a factor of 100; a busy machine makes a factor of two.
        assert cost[1000] < 4 * cost[10]
