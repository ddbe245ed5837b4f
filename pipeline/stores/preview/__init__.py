"""`medalign teacher preview`: what a store holds, which rows look odd, and whether rows match their images."""
