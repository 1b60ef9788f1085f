package main

import (
	"strings"
	"testing"

	"github.com/shardpress/shardpress/coordinator"
)

// TestProgress follows a run in which an attempt fails and placed bytes are lost.
func TestProgress(t *testing.T) {
	t.Parallel()
	p := &coordinator.Outline{Units: []coordinator.OutlineUnit{{File: "a", Source: 100}, {File: "b", Source: 50}}}
	var out strings.Builder
	l := &lines{w: &out}
	l.start(p)
	for _, step := range []struct {
		u     coordinator.Update
		done  int
		total int64
	}{
		{coordinator.Update{Kind: coordinator.UpdateStarted, Run: "r", Tasks: 2}, 0, 0},
		{coordinator.Update{Kind: coordinator.UpdateProgress, Unit: 0, Bytes: 60}, 0, 60},
		{coordinator.Update{Kind: coordinator.UpdateProgress, Unit: 1, Bytes: 500}, 0, 110}, // never more than there is
		{coordinator.Update{Kind: coordinator.UpdateFailed, Unit: 0, Worker: "w", Message: "no"}, 0, 110},
		{coordinator.Update{Kind: coordinator.UpdateProgress, Unit: 0, Bytes: 10}, 0, 110}, // the next attempt, never backwards
		{coordinator.Update{Kind: coordinator.UpdatePlaced, Unit: 0}, 1, 150},
		{coordinator.Update{Kind: coordinator.UpdateRepair, Unit: 0, Message: "gone"}, 0, 50},
		{coordinator.Update{Kind: coordinator.UpdatePaused, Message: "full"}, 0, 50},
		{coordinator.Update{Kind: coordinator.UpdateResumed}, 0, 50},
		{coordinator.Update{Kind: coordinator.UpdatePlaced, Unit: 1}, 1, 50},
		{coordinator.Update{Kind: coordinator.UpdatePlaced, Unit: 0}, 2, 150},
		{coordinator.Update{Kind: coordinator.UpdateFinished}, 2, 150},
	} {
		l.update(step.u)
		if l.done != step.done || l.total != step.total {
			t.Errorf("after %+v: %d tasks, %d bytes, want %d and %d", step.u, l.done, l.total, step.done, step.total)
		}
	}
	want := "run r: 2 tasks\nattempt at a failed on worker w: no\n[1/2] a\nmaking a again: gone\npaused until the store works again: full\nthe store works again\n[1/2] b\n[2/2] a\n"
	if out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
	for reused, want := range map[int]string{0: "3 tasks", 1: "1 of 3 tasks are in the store already, 2 left to do", 3: "3 of 3 tasks are in the store already, none left to do"} {
		if got := outset(coordinator.Update{Tasks: 3, Reused: reused}); got != want {
			t.Errorf("%d reused: %q, want %q", reused, got, want)
		}
	}
}
