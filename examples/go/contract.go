package main

import "fmt"

// The part of Paddock's contract v1 that this program needs; every field of a spec may be left out.

// Spec is the argument of the workflow Sandbox.
type Spec struct {
	APIVersion string `json:"api_version,omitempty"`
	Policy     string `json:"policy,omitempty"`
	Task       *Task  `json:"task,omitempty"`
	LifetimeS  int    `json:"lifetime_s,omitempty"`
}

// Task is one run of one program.
type Task struct {
	Argv []string `json:"argv"`
}

// Status is the answer of the query "status".
type Status struct {
	State string `json:"state"`
	Host  string `json:"host"`
}

// Report is what Sandbox answers when all of it is gone.
type Report struct {
	SandboxID string      `json:"sandbox_id"`
	Outcome   string      `json:"outcome"`
	Reason    string      `json:"reason"`
	Task      *TaskResult `json:"task"`
	Receipts  []Receipt   `json:"receipts"`
}

// TaskResult is how a program ended: by an exit code, or by a signal.
type TaskResult struct {
	Exit        *int   `json:"exit"`
	Signal      *int   `json:"signal"`
	OutputBytes int64  `json:"output_bytes"`
	Output      string `json:"output_digest"`
}

// Receipt says how it was checked that one resource is gone.
type Receipt struct {
	Resource  string `json:"resource"`
	ID        string `json:"id"`
	Gone      string `json:"gone"`
	CheckedBy string `json:"checked_by"`
}

func (r Report) print() {
	fmt.Printf("outcome: %s %s\n", r.Outcome, r.Reason)
	if r.Task != nil && r.Task.Exit != nil {
		fmt.Printf("exit: %d, %d bytes of output\n", *r.Task.Exit, r.Task.OutputBytes)
	}
	for _, receipt := range r.Receipts {
		fmt.Printf("receipt: %s %s %s: %s\n", receipt.Resource, receipt.ID, receipt.Gone, receipt.CheckedBy)
	}
}
