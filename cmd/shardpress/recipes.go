package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/compress/recipe"
)

func newRecipes() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "recipes",
		Short: "List presets, methods and their parameters",
		Long: `List the presets that --recipe takes by name, and the methods with the parameters
that a recipe file or --set can give them.`,
		Example: `  shardpress recipes
  shardpress recipes --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			presets, err := recipe.Presets()
			if err != nil {
				return err
			}
			methods, err := recipe.Methods()
			if err != nil {
				return err
			}
			if asJSON {
				type preset struct {
					Name        string          `json:"name"`
					Description string          `json:"description"`
					Recipe      json.RawMessage `json:"recipe"`
				}
				list := []preset{}
				for _, r := range presets {
					b, err := r.Canonical()
					if err != nil {
						return err
					}
					list = append(list, preset{r.Name, r.Description, b})
				}
				e := json.NewEncoder(c.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(map[string]any{"presets": list, "methods": methods})
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "PRESET\tFORMAT\tDESCRIPTION")
			for _, r := range presets {
				fmt.Fprintf(w, "%s\t%s\t%s\n", r.Name, r.Format(), r.Description)
			}
			for _, m := range methods {
				fmt.Fprintf(w, "\nMETHOD %s@%d\t%s\t%s\n", m.Name, m.Version, strings.Join(m.Formats, "|"), m.Description)
				for _, p := range m.Parameters {
					takes := string(p.Kind)
					if len(p.Choices) > 0 {
						takes = strings.Join(p.Choices, "|")
					}
					fmt.Fprintf(w, "  %s=%v\t%s\t%s\n", p.Name, p.Default, takes, p.Doc)
				}
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
