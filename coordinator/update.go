package coordinator

// Update is news of a run for whoever watches it.
type Update struct {
	// Kind is one of the constants below; the other fields are those it names.
	Kind    string `json:"kind"`
	Run     string `json:"run"`
	Unit    int    `json:"unit"` // index into Plan.Units
	Task    string `json:"task,omitempty"`
	Worker  string `json:"worker,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"`
	Reused  int    `json:"reused,omitempty"`
	Tasks   int    `json:"tasks,omitempty"`
	Message string `json:"message,omitempty"`
	Final   bool   `json:"final,omitempty"` // the failure ends the run, whose error says it again
}

// Kinds of updates.
const (
	UpdateStarted  = "started"  // Tasks, of which Reused have results already
	UpdateProgress = "progress" // Unit, Worker, Bytes of source worked through so far
	UpdateDone     = "done"     // Unit, Worker
	UpdateFailed   = "failed"   // Unit, Worker, Message, Final: an attempt
	UpdateRepair   = "repair"   // Unit, Message: bytes were lost and are made again
	UpdateTwin     = "twin"     // Unit, Worker: a straggler is given to a second worker
	UpdateAudited  = "audited"  // Unit, Worker, Message if the bytes differ
	UpdatePaused   = "paused"   // Message: the store is full or does not answer
	UpdateResumed  = "resumed"
	UpdatePlaced   = "placed" // Unit
	UpdateAssemble = "assemble"
	UpdateFinished = "finished" // Message if it failed
)
