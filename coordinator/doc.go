// Package coordinator decides what is to be done and sees it through: NewPlan and
// State.Step are pure, Run.Execute is the one loop that acts on what they say, and
// Output puts the result together.
//
// It runs no task itself, and nothing about the fleet enters a plan: neither the
// number of workers, nor their memory, nor who is there.
package coordinator
