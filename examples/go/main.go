// Runs a program in a Paddock sandbox, and stops sandboxes, with nothing but Temporal's own SDK.
//
//	go run . run NAME [-policy POLICY] PROGRAM [ARGUMENT...]
//	go run . start NAME
//	go run . stop NAME
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
)

const usage = "usage: run NAME [-policy POLICY] PROGRAM [ARGUMENT...] | start NAME | stop NAME"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := paddock(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "paddock:", err)
		os.Exit(1)
	}
}

func paddock(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New(usage)
	}
	address := os.Getenv("TEMPORAL_ADDRESS")
	if address == "" {
		address = client.DefaultHostPort
	}
	quiet := log.NewStructuredLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	c, err := client.DialContext(ctx, client.Options{HostPort: address, Logger: quiet})
	if err != nil {
		return fmt.Errorf("no Temporal at %s: %w", address, err)
	}
	defer c.Close()

	switch verb, id := args[0], "sandbox/"+args[1]; verb {
	case "run":
		return run(ctx, c, id, args[2:])
	case "start":
		_, err := start(ctx, c, id, Spec{LifetimeS: 600})
		return err
	case "stop":
		return end(ctx, c, id)
	default:
		return errors.New(usage)
	}
}

// run starts a sandbox with a task in its spec, follows it to its end, and prints how it ended and what is gone.
func run(ctx context.Context, c client.Client, id string, args []string) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	policy := flags.String("policy", "deny-all", "what it may reach")
	if err := flags.Parse(args); err != nil {
		return err
	}
	started, err := start(ctx, c, id, Spec{Policy: *policy, Task: &Task{Argv: flags.Args()}, LifetimeS: 600})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	var report Report
	go func() { ended <- started.Get(ctx, &report) }()

	ticks := time.NewTicker(300 * time.Millisecond)
	defer ticks.Stop()
	seen := ""
	for {
		select {
		case err := <-ended:
			if err != nil {
				return failure(err)
			}
			report.print()
			return nil
		case <-ticks.C:
			if now, err := status(ctx, c, id); err == nil && now.State != seen {
				seen = now.State
				fmt.Printf("state: %s host: %s\n", now.State, now.Host)
			}
		}
	}
}

// start starts a sandbox, or finds the one of this id that runs: asking twice is safe.
func start(ctx context.Context, c client.Client, id string, spec Spec) (client.WorkflowRun, error) {
	options := client.StartWorkflowOptions{
		ID:                       id,
		TaskQueue:                "control",
		WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
	}
	started, err := c.ExecuteWorkflow(ctx, options, "Sandbox", spec)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be started: %w", id, err)
	}
	fmt.Printf("started: %s\n", started.GetID())
	return started, nil
}

// status is where a sandbox is now.
func status(ctx context.Context, c client.Client, id string) (Status, error) {
	var now Status
	answer, err := c.QueryWorkflow(ctx, id, "", "status")
	if err == nil {
		err = answer.Get(&now)
	}
	return now, err
}

// end stops a sandbox and waits for its receipts; one that has ended answers with its report too.
func end(ctx context.Context, c client.Client, id string) error {
	var report Report
	update, err := c.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID:   id,
		UpdateName:   "stop",
		Args:         []any{"stopped by the Go example"},
		WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err == nil {
		err = update.Get(ctx, &report)
	}
	var ended *serviceerror.NotFound
	if errors.As(err, &ended) { // no such sandbox, or it has ended: then its result is the report
		err = c.GetWorkflow(ctx, id, "").Get(ctx, &report)
	}
	if err != nil {
		return failure(err)
	}
	report.print()
	return nil
}

// failure says why a sandbox failed: its report is in the details of the workflow's failure.
func failure(err error) error {
	var failed *temporal.ApplicationError
	var report Report
	if errors.As(err, &failed) && failed.HasDetails() && failed.Details(&report) == nil && report.Outcome != "" {
		report.print()
		return fmt.Errorf("%s: %s", report.Outcome, failed.Message())
	}
	if errors.As(err, &failed) { // a spec that cannot be: the words name the field
		return errors.New(failed.Message())
	}
	return err
}
