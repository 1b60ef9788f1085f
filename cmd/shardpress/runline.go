package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// runLine is a run in a list.
type runLine struct {
	Run    string `json:"run"`
	State  string `json:"state"`
	Recipe string `json:"recipe"`
	Model  string `json:"model"`
	Out    string `json:"out"`
	Tasks  string `json:"tasks"`
	Time   string `json:"time"`
}

func describeRun(c *cobra.Command, b objstore.Bucket, run string) (runLine, error) {
	line := runLine{Run: run, State: "open", Tasks: "-", Time: "-"}
	sub, err := coordinator.ReadSubmission(c.Context(), b, run)
	switch {
	case errors.Is(err, task.ErrInvalid):
		line.State = "unreadable"
		return line, nil
	case errors.Is(err, objstore.ErrNotExist):
		line.State = "removed"
		return line, nil
	case err != nil:
		return line, err
	}
	asked := func(key string) string { s, _ := sub.Request[key].(string); return s }
	line.Recipe, line.Model, line.Out = asked("recipe"), asked("model"), asked("out")
	r, err := coordinator.ReadRecord(c.Context(), b, run)
	if err != nil || r == nil {
		return line, err
	}
	line.State = r.State
	line.Tasks = fmt.Sprintf("%d/%d", r.Totals.Tasks-r.Totals.Unfinished, r.Totals.Tasks)
	line.Time = (time.Duration(r.Totals.Elapsed*1000) * time.Millisecond).Round(100 * time.Millisecond).String()
	return line, nil
}
