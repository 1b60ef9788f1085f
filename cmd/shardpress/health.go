package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// healthPatience is how long a process may take to say how it is.
const healthPatience = 5 * time.Second

func newHealth() *cobra.Command {
	var address string
	c := &cobra.Command{
		Use:   "health",
		Short: "Ask a process of a fleet on this machine how it is",
		Long: `Ask a coordinator or worker that was started with --metrics-listen how it is, as the
health check of a container does whose image has no other program. Exit code 0: well.`,
		Example: `  shardpress health --metrics 127.0.0.1:9464`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), healthPatience)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/healthz", nil)
			if err != nil {
				return &usageError{fmt.Errorf("--metrics %s: want HOST:PORT", address)}
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return fmt.Errorf("ask %s: %w", address, err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
			if err != nil {
				return fmt.Errorf("ask %s: %w", address, err)
			}
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("%s is not well: %s: %s", address, resp.Status, body)
			}
			return nil
		},
	}
	c.Flags().StringVar(&address, "metrics", "127.0.0.1:9464", "what the process was told by --metrics-listen")
	return c
}
